"""HTTP to the authority: pooled connections, a deadline, and a pause while it is down."""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from flask import has_request_context
from flask import request as served

from . import _errors
from ._errors import ConfigurationError, Unavailable
from ._wire import Connection, Reply

_PAUSE_MIN = 0.1
_PAUSE_MAX = 3.0
_IDLE_MAX = 32
_PORTS = {"http": 80, "https": 443}
#: A connection that lay idle for longer may be closed at the other end any moment.
_IDLE_SECONDS = 8.0
_BODY_MAX = 4 * 1024 * 1024
#: Version 00 of W3C Trace Context, section 3.2.
_TRACEPARENT = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket file, for the stream."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = _unix_socket(self._path, self.timeout or _PAUSE_MAX)


class Transport:
    """The connection to one authority. Any thread may use it, and a fork may follow."""

    def __init__(
        self, url: str, api_key: str, timeout: float, ca_file: str | None, logger: logging.Logger
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "unix") or not (parts.netloc or parts.path):
            raise ConfigurationError(
                f"CLOAKROOM_URL is {url!r}; it must be http://, https:// or unix:/path"
            )
        self.url = url
        self.timeout = timeout
        self._parts = parts
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {api_key}", "Accept": "application/json"}
        own = {"Host": parts.netloc.rpartition("@")[2] or "localhost", **self._headers}
        self._head = _lines(own)
        self._logger = logger
        self.reset()

    def reset(self) -> None:
        """Forgets the connections: after a fork they are the parent's."""
        self._pid = os.getpid()
        self._idle: deque[tuple[float, Connection]] = deque(maxlen=_IDLE_MAX)
        self._lock = threading.Lock()
        self._failures = 0
        self._down_until = 0.0

    @property
    def is_down(self) -> bool:
        """Whether the last attempt met nobody."""
        return self._failures > 0

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        expect: Collection[int] = (),
    ) -> Reply:
        """Asks, and raises what is wrong, but for the statuses that are expected."""
        if time.monotonic() < self._down_until:
            raise Unavailable(f"the session authority at {self.url} can't be reached")
        sent = {**_trace(), **(headers or {})}
        payload = b""
        if body is not None:
            payload = json.dumps(body, separators=(",", ":")).encode()
            sent["Content-Type"] = "application/json"
        elif form is not None:
            payload = urlencode(form).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        if payload or method not in ("GET", "DELETE"):
            sent["Content-Length"] = str(len(payload))
        request = _lines({}, f"{method} {path} HTTP/1.1") + self._head + _lines(sent)
        request += b"\r\n" + payload
        try:
            reply = self._exchange(request)
        except OSError as fault:
            raise self.failed(fault) from fault
        self.succeeded()
        if reply.status < 400 or reply.status in expect:
            return reply
        raise _errors.of_answer(reply.status, reply.json(), reply.headers.get("retry-after"))

    def stream(
        self, path: str, headers: Mapping[str, str], timeout: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Opens an answer that doesn't end; ``timeout`` bounds each silence."""
        connection = self._streaming(timeout)
        try:
            connection.request("GET", path, headers={**self._headers, **headers})
            response = connection.getresponse()
            if response.status != 200:
                body = json.loads(response.read(_BODY_MAX) or b"null")
                raise _errors.of_answer(response.status, body, response.headers.get("Retry-After"))
        except BaseException:
            connection.close()
            raise
        return connection, response

    def failed(self, fault: BaseException) -> Unavailable:
        """Notes that nobody answered: others needn't wait for the same."""
        with self._lock:
            pause = min(_PAUSE_MAX, _PAUSE_MIN * 2.0 ** min(self._failures, 10))
            # Spread, so that workers don't come back all at once. Not a secret.
            pause *= 0.5 + random.random() / 2  # noqa: S311
            self._failures += 1
            first = self._failures == 1
            self._down_until = time.monotonic() + pause
        what = "doesn't answer in time" if isinstance(fault, TimeoutError) else "can't be reached"
        if first:
            self._logger.error(
                "cloakroom: the session authority at %s %s (%s); requests that need it answer 503",
                self.url,
                what,
                fault or type(fault).__name__,
            )
        return Unavailable(f"the session authority at {self.url} {what}")

    def succeeded(self) -> None:
        """Notes that the authority answers."""
        if self._failures == 0:
            return
        with self._lock:
            told, self._failures, self._down_until = self._failures, 0, 0.0
        if told:
            self._logger.warning("cloakroom: the session authority at %s is back", self.url)

    def _exchange(self, request: bytes) -> Reply:
        deadline = time.monotonic() + self.timeout
        while (connection := self._pooled()) is not None:
            try:
                return self._once(connection, request, deadline)
            except ConnectionError:
                # It was closed while it lay idle. All that we ask for may be asked twice.
                continue
        return self._once(Connection(self._connected(self.timeout)), request, deadline)

    def _once(self, connection: Connection, request: bytes, deadline: float) -> Reply:
        try:
            reply = connection.ask(request, deadline)
        except BaseException:
            # Also when a greenlet is killed: half an answer must not meet the next request.
            connection.close()
            raise
        if connection.is_open:
            self._idle.append((time.monotonic(), connection))
        else:
            connection.close()
        return reply

    def _pooled(self) -> Connection | None:
        if self._pid != os.getpid():
            self.reset()
        while self._idle:
            try:
                since, connection = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - since < _IDLE_SECONDS:
                return connection
            connection.close()
        return None

    def _connected(self, timeout: float) -> socket.socket:
        parts = self._parts
        if parts.scheme == "unix":
            return _unix_socket(parts.path, timeout)
        host = parts.hostname or "localhost"
        sock = socket.create_connection((host, parts.port or _PORTS[parts.scheme]), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock if self._tls is None else self._tls.wrap_socket(sock, server_hostname=host)

    def _streaming(self, timeout: float) -> http.client.HTTPConnection:
        parts = self._parts
        if parts.scheme == "unix":
            return _UnixConnection(parts.path, timeout)
        host = parts.hostname or "localhost"
        if self._tls is not None:
            return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(host, parts.port, timeout=timeout)


def _unix_socket(path: str, timeout: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    sock.connect(path)
    return sock


def _trace() -> dict[str, str]:
    """The trace of the request that is being served goes on at the authority."""
    parent = served.headers.get("traceparent", "") if has_request_context() else ""
    return {"traceparent": parent} if _TRACEPARENT.fullmatch(parent) else {}


def _lines(headers: Mapping[str, str], first: str | None = None) -> bytes:
    lines = [] if first is None else [first]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    for line in lines:
        # Nothing in a value may begin a line of its own.
        if not (line.isascii() and line.isprintable()):
            raise ValueError("a header for the authority has characters that none may have")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def segment(text: str) -> str:
    """``text`` as one segment of a path."""
    return quote(text, safe="")
