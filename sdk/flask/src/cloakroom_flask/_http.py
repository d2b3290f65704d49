"""HTTP to the authority: pooled connections, a deadline, and a pause while it is down."""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from . import _errors
from ._errors import ConfigurationError, Unavailable

_PAUSE_MIN = 0.1
_PAUSE_MAX = 3.0
_IDLE_MAX = 32
#: A connection that lay idle for longer may be closed at the other end any moment.
_IDLE_SECONDS = 8.0
_BODY_MAX = 4 * 1024 * 1024


class Reply(NamedTuple):
    """An answer of the authority."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """The body, or ``None`` where it isn't JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


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
        self._logger = logger
        self.reset()

    def reset(self) -> None:
        """Forgets the connections: after a fork they are the parent's."""
        self._pid = os.getpid()
        self._idle: deque[tuple[float, http.client.HTTPConnection]] = deque(maxlen=_IDLE_MAX)
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
        sent = {**self._headers, **(headers or {})}
        payload: bytes | None = None
        if body is not None:
            payload = json.dumps(body, separators=(",", ":")).encode()
            sent["Content-Type"] = "application/json"
        elif form is not None:
            payload = urlencode(form).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            reply = self._exchange(method, path, payload, sent)
        except (OSError, http.client.HTTPException) as fault:
            raise self.failed(fault) from fault
        self.succeeded()
        if reply.status < 400 or reply.status in expect:
            return reply
        raise _errors.of_answer(reply.status, reply.json(), reply.headers.get("Retry-After"))

    def stream(
        self, path: str, headers: Mapping[str, str], timeout: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Opens an answer that doesn't end; ``timeout`` bounds each silence."""
        connection = self._connect(timeout)
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

    def _exchange(
        self, method: str, path: str, payload: bytes | None, headers: dict[str, str]
    ) -> Reply:
        while (connection := self._pooled()) is not None:
            try:
                return self._once(connection, method, path, payload, headers)
            except TimeoutError:
                raise
            except (ConnectionError, http.client.BadStatusLine, http.client.CannotSendRequest):
                # It was closed while it lay idle. All that we ask for may be asked twice.
                continue
        return self._once(self._connect(self.timeout), method, path, payload, headers)

    def _once(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        payload: bytes | None,
        headers: dict[str, str],
    ) -> Reply:
        try:
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            body = response.read(_BODY_MAX)
            reply = Reply(response.status, response.headers, body)
        except BaseException:
            # Also when a greenlet is killed: half an answer must not meet the next request.
            connection.close()
            raise
        if response.will_close or not response.isclosed():
            connection.close()
        else:
            self._idle.append((time.monotonic(), connection))
        return reply

    def _pooled(self) -> http.client.HTTPConnection | None:
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

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        parts = self._parts
        if parts.scheme == "unix":
            return _UnixConnection(parts.path, timeout)
        host = parts.hostname or "localhost"
        if self._tls is not None:
            return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(host, parts.port, timeout=timeout)


def segment(text: str) -> str:
    """``text`` as one segment of a path."""
    return quote(text, safe="")
