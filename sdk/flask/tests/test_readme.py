"""The five minutes of the README, as written: in a clean folder, with the built wheel.

Only the ports are others, since somebody else may have those.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, free_port, program, wait_until

README = ROOT / "sdk/flask/README.md"
WHEELS = ROOT / "target/flask"

Block = tuple[str, str]


def blocks() -> list[Block]:
    """The section's code blocks, in their order: language and text."""
    text = README.read_text(encoding="utf-8")
    section = text.split("\n## Five minutes\n")[1].split("\n## ")[0]
    return re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


class Folder:
    """A clean folder, with a Python of its own, and the ports that its visitors are given."""

    def __init__(self, root: Path) -> None:
        self.public, self.admin, self.port = free_port(), free_port(), free_port()
        self.own, tools = root / "shop", root / "bin"
        self.own.mkdir()
        tools.mkdir()
        (tools / "cloakroom").symlink_to(Path(program()).resolve())
        subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CLOAKROOM_", "FLASK_", "PYTHON"))
        }
        self.environment = {
            **inherited,
            "PATH": f"{root / 'venv/bin'}:{tools}:{os.environ['PATH']}",
            "CLOAKROOM_SERVER__PUBLIC": f"127.0.0.1:{self.public}",
            "CLOAKROOM_SERVER__ADMIN": f"127.0.0.1:{self.admin}",
            "FLASK_RUN_PORT": str(self.port),
        }
        self._setup = ""
        self._running: list[subprocess.Popen[bytes]] = []

    def elsewhere(self, text: str) -> str:
        """The same for our ports."""
        return text.replace("7401", str(self.admin)).replace("5000", str(self.port))

    def start(self, text: str) -> None:
        """Leaves it running, as one does in a terminal."""
        self._running.append(
            subprocess.Popen(
                ["bash", "-ec", self._setup + self.elsewhere(text)],
                cwd=self.own,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def run(self, text: str) -> str:
        """Runs it to its end; what it said."""
        done = subprocess.run(
            ["bash", "-ec", self._setup + self.elsewhere(text)],
            cwd=self.own,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, f"{text}: {done.stdout} {done.stderr}"
        return done.stdout

    def keep(self, exports: str) -> None:
        """What one exports is there for all that follows in that terminal."""
        self._setup += self.elsewhere(exports)

    def stop(self) -> None:
        """Ends what was left running."""
        for process in self._running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def visit(self, *arguments: str) -> str:
        """A browser's request, by its jar; the answer with its head."""
        url = f"http://127.0.0.1:{self.port}"
        asked = ["curl", "-s", "-i", "-c", "jar", "-b", "jar", "-H", "Accept: text/html"]
        done = subprocess.run(
            [*asked, *(word.replace("URL", url) for word in arguments)],
            cwd=self.own,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """A clean folder."""
    folder = Folder(tmp_path)
    yield folder
    folder.stop()


def token_of(page: str) -> str:
    """The CSRF token in a form."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found, page
    return found.group(1)


def test_the_five_minutes_of_the_readme_work_as_they_are_written(folder: Folder) -> None:
    wheels = sorted(WHEELS.glob("*.whl"))
    if not wheels:
        pytest.skip("no wheel was built; `cargo xtask test flask` builds it")
    (_, serve), (_, install), (language, app), (_, run), (_, look), *more = blocks()
    assert not more, "a block that nobody runs"
    folder.start(serve)
    key = folder.own / "cloakroom-data/root-api.key"
    wait_until(key.exists, "the authority's key")
    first, *exports = install.splitlines()
    assert first == "pip install cloakroom-flask"
    folder.run(first.replace("cloakroom-flask", f"--quiet {wheels[-1]}"))
    folder.keep("\n".join(exports) + "\n")
    assert language == "python"
    (folder.own / "app.py").write_text(app, encoding="utf-8")
    folder.start(run)
    wait_until(lambda: "login" in probe(folder), "the application")
    check, sessions = (line.split("#")[0].strip() for line in look.splitlines())
    assert "ok" in folder.run(check).lower()

    # What the page says to do in a browser.
    page = folder.visit("-L", "URL/")
    folder.visit("-d", f"csrf_token={token_of(page)}&name=ada", "URL/login")
    assert "ada, user: 1 visits" in folder.visit("URL/")
    assert "ada, user: 2 visits" in folder.visit("URL/")
    listed = folder.run(sessions)
    sid = re.search(
        r"\b[0-9A-HJKMNP-TV-Z]{26}\b", next(x for x in listed.splitlines() if "ada" in x)
    )
    assert sid, listed
    folder.run(f"flask cloakroom revoke {sid.group(0)}")
    ended = wait_until(lambda: over(folder), "the end of the session")
    assert "/login" in ended


def probe(folder: Folder) -> str:
    """What the application answers, if it does."""
    try:
        return folder.visit("URL/login")
    except subprocess.CalledProcessError:
        return ""


def over(folder: Folder) -> str:
    """Where a visitor whose session has ended is sent."""
    head = folder.visit("URL/")
    return head if head.startswith("HTTP/1.1 302") else ""
