"""A real authority for the tests, on free loopback ports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings

from cloakroom_flask import Cloakroom

# How long an example takes is the machine's business.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 40.0

AppMaker = Callable[..., Flask]


def program() -> str:
    """The program `cloakroom`."""
    return os.environ.get("CLOAKROOM_BIN") or str(ROOT / "target/debug/cloakroom")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(check: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Waits for something that comes by itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := check():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} doesn't come")


class Server:
    """A running authority, which can be stopped and started again."""

    def __init__(self, **configured: str) -> None:
        self.folder = tempfile.mkdtemp(prefix="cloakroom-flask-")
        self.public, self.admin = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.admin}"
        self._settings = configured
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self.root_key = Path(self.folder, "root-api.key").read_text().strip()
        self.key = self.make_key("sessions:read", "sessions:write")

    def start(self) -> None:
        """Starts it, and waits until it is ready."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("CLOAKROOM_")}
        environment = {
            **inherited,
            "CLOAKROOM_SERVER__PUBLIC": f"127.0.0.1:{self.public}",
            "CLOAKROOM_SERVER__ADMIN": f"127.0.0.1:{self.admin}",
            "CLOAKROOM_SERVER__ORIGIN": f"http://127.0.0.1:{self.public}",
            "CLOAKROOM_LOG__LEVEL": "error",
            "CLOAKROOM_LIMIT__NETWORK": "1000000/1m",
            # The machine may have other things to do.
            "CLOAKROOM_STORE__TIMEOUT": "8s",
            **{f"CLOAKROOM_{name}": value for name, value in self._settings.items()},
        }
        self._process = subprocess.Popen(
            [program(), "serve", "--data", self.folder],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._is_ready, "the authority")

    def stop(self) -> None:
        """Stops it, as an outage does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It is there, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Stops it and removes what it kept."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> Any:
        """Asks the admin listener; the body of the answer."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {key or self.root_key}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def make_key(self, *scopes: str) -> str:
        """An API key with these scopes."""
        body = {"name": "test", "scopes": list(scopes)}
        return str(self.ask("POST", "/admin/v1/api-keys", body)["secret"])

    def live_sessions(self, subject: str) -> list[dict[str, Any]]:
        """The live sessions of a subject."""
        found = self.ask("GET", f"/admin/v1/subjects/{subject}/sessions")["sessions"]
        return [view for view in found if view["ended"] is None]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):
                return True
        except OSError:
            assert self._process is None or self._process.poll() is None, "it ended at once"
            return False


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """An authority that all tests share."""
    server = Server()
    yield server
    server.remove()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """An authority for one test, which may stop it."""
    server = Server()
    yield server
    server.remove()


@pytest.fixture
def make_app(server: Server) -> Iterator[AppMaker]:
    """Makes applications of the shared authority, or of another."""
    made: list[Flask] = []

    def make(of: Server | None = None, **config: Any) -> Flask:
        legacy = config.pop("legacy", ())
        login_view = config.pop("login_view", None)
        app = Flask("app")
        authority = of or server
        app.config.update(
            TESTING=True,
            CLOAKROOM_URL=authority.url,
            CLOAKROOM_API_KEY=authority.key,
            # The machine may have other things to do.
            CLOAKROOM_TIMEOUT="8s",
        )
        app.config.update(config)
        Cloakroom(app, login_view=login_view, legacy=legacy)
        made.append(app)
        return app

    yield make
    for app in made:
        close = getattr(app.extensions["cloakroom"].authority, "close", None)
        if close is not None:
            close()


def authority_of(app: Flask) -> Any:
    """The authority of an application, as it sees it."""
    return app.extensions["cloakroom"].authority


def wait_until_fresh(app: Flask) -> None:
    """Waits until the feed tells everything."""
    authority = authority_of(app)
    authority.prepare()
    wait_until(lambda: authority.is_fresh, "the feed")
