"""Under the servers that run Flask in production: worker processes, threads, greenlets."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Server, free_port, wait_until

MODES = {
    "prefork": ["--workers", "3"],
    "preload": ["--workers", "3", "--preload"],
    "threads": ["--workers", "2", "--threads", "4", "--preload"],
    "gevent": ["--workers", "2", "--worker-class", "gevent"],
    "gevent-preload": ["--workers", "2", "--worker-class", "gevent", "--preload"],
}


class Site:
    """A running application."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def ask(
        self, method: str, path: str, body: Any = None, cookie: str | None = None
    ) -> tuple[int, Any, str | None]:
        """Status, JSON and session cookie of an answer; each on a connection of its own."""
        request = urllib.request.Request(self._base + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if cookie is not None:
            request.add_header("Cookie", f"session={cookie}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return _read(answer)
        except urllib.error.HTTPError as answer:
            return _read(answer)

    def is_up(self) -> bool:
        try:
            return self.ask("GET", "/")[0] == 200
        except OSError:
            return False


def _read(answer: Any) -> tuple[int, Any, str | None]:
    text = answer.read()
    cookie = answer.headers.get("Set-Cookie") or ""
    found = cookie.partition("session=")[2].partition(";")[0] or None
    is_json = "json" in answer.headers.get("Content-Type", "")
    return answer.status, json.loads(text) if is_json else None, found


@contextlib.contextmanager
def running(server: Server, arguments: list[str]) -> Iterator[Site]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--log-level"]
        + ["warning", "--graceful-timeout", "2", *arguments, "server_app:app"],
        cwd=Path(__file__).parent,
        env={
            **os.environ,
            "CLOAKROOM_URL": server.url,
            "CLOAKROOM_API_KEY": server.key,
            "PYTHONPATH": str(Path(__file__).parent),
        },
    )
    site = Site(port)
    try:
        wait_until(site.is_up, "the application")
        yield site
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def workers_of(arguments: list[str]) -> int:
    return int(arguments[arguments.index("--workers") + 1])


@pytest.mark.parametrize("mode", MODES)
def test_every_worker_follows_the_feed_itself(server: Server, mode: str) -> None:
    if "gevent" in mode and importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent isn't installed")
    with running(server, MODES[mode]) as site:
        fresh: set[int] = set()

        def all_fresh() -> bool:
            _, found, _ = site.ask("GET", "/where")
            if found["fresh"]:
                fresh.add(found["pid"])
            return len(fresh) == workers_of(MODES[mode])

        wait_until(all_fresh, "every worker's feed")
        _, opened, cookie = site.ask("POST", "/login", {"user": mode})
        for _ in range(12):
            status, me, _ = site.ask("GET", "/me", cookie=cookie)
            assert (status, me["id"]) == (200, mode)
        # What one worker saved, the next one reads.
        for number in range(8):
            assert site.ask("POST", "/data", {"n": number}, cookie)[0] == 200
            assert site.ask("GET", "/data", cookie=cookie)[1] == {"n": number}
        server.ask("DELETE", f"/admin/v1/sessions/{opened['sid']}")
        time.sleep(2)
        statuses = {site.ask("GET", "/me", cookie=cookie)[0] for _ in range(12)}
        assert statuses == {401}, "every worker knows it"


def test_workers_live_through_an_outage(own_server: Server) -> None:
    with running(own_server, MODES["preload"]) as site:
        _, _, cookie = site.ask("POST", "/login", {"user": "ada"})
        own_server.stop()

        def all_of_them(status: int) -> bool:
            return {site.ask("GET", "/me", cookie=cookie)[0] for _ in range(10)} == {status}

        wait_until(lambda: all_of_them(503), "the outage", 8)
        assert site.ask("GET", "/")[0] == 200
        own_server.start()
        wait_until(lambda: all_of_them(200), "the authority", 15)
