"""One HTTP/1.1 connection (RFC 9112), as far as an authority's answers need it.

The standard library's reads headers as if they were mail, which costs more than all the rest.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any, NamedTuple

_HEAD_MAX = 64 * 1024
_BODY_MAX = 4 * 1024 * 1024
_CHUNK = 64 * 1024
_WITHOUT_BODY = (204, 304)


class ProtocolError(OSError):
    """What came is no HTTP answer, or more than any that is expected."""


class Reply(NamedTuple):
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, or ``None`` where it isn't JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Connection:
    """A connection on which one question is asked at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        #: Whether another question may follow.
        self.is_open = True

    def ask(self, request: bytes, deadline: float) -> Reply:
        """Sends the request and reads its answer, by `time.monotonic`'s ``deadline``."""
        self.is_open = False
        self._sock.settimeout(_left(deadline))
        self._sock.sendall(request)
        version, status, headers = self._head(deadline)
        while status < 200:
            version, status, headers = self._head(deadline)
        length = headers.get("content-length")
        if status in _WITHOUT_BODY:
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunked(deadline)
        elif length is not None:
            body = self._exactly(_size(length, 10), deadline)
        else:
            return Reply(status, headers, self._to_the_end(deadline))
        closes = headers.get("connection", "").lower() == "close"
        self.is_open = version == "HTTP/1.1" and not closes and not self._rest
        return Reply(status, headers, body)

    def close(self) -> None:
        """Lets go of it."""
        self.is_open = False
        self._sock.close()

    def _head(self, deadline: float) -> tuple[str, int, dict[str, str]]:
        text = self._until(b"\r\n\r\n", deadline).decode("latin-1")
        first, *lines = text.split("\r\n")
        version, _, rest = first.partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
            raise ProtocolError("what answers doesn't speak HTTP/1.1")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip(" \t")
        return version, int(rest[:3]), headers

    def _chunked(self, deadline: float) -> bytes:
        parts: list[bytes] = []
        whole = 0
        while True:
            line = self._until(b"\r\n", deadline).partition(b";")[0].decode("latin-1")
            size = _size(line.strip(), 16)
            if size == 0:
                break
            whole += size
            if whole > _BODY_MAX:
                raise ProtocolError("the answer is too long")
            parts.append(self._exactly(size, deadline))
            self._exactly(2, deadline)
        while self._until(b"\r\n", deadline):
            pass  # Trailers.
        return b"".join(parts)

    def _until(self, mark: bytes, deadline: float) -> bytes:
        while (end := self._rest.find(mark)) < 0:
            if len(self._rest) > _HEAD_MAX:
                raise ProtocolError("the answer's head is too long")
            self._rest += self._more(deadline)
        found, self._rest = self._rest[:end], self._rest[end + len(mark) :]
        return found

    def _exactly(self, size: int, deadline: float) -> bytes:
        parts, have = [self._rest], len(self._rest)
        while have < size:
            parts.append(self._more(deadline))
            have += len(parts[-1])
        whole = b"".join(parts)
        found, self._rest = whole[:size], whole[size:]
        return found

    def _to_the_end(self, deadline: float) -> bytes:
        parts, have = [self._rest], len(self._rest)
        while True:
            try:
                parts.append(self._more(deadline))
            except ConnectionError:
                return b"".join(parts)
            have += len(parts[-1])
            if have > _BODY_MAX:
                raise ProtocolError("the answer is too long")

    def _more(self, deadline: float) -> bytes:
        self._sock.settimeout(_left(deadline))
        found = self._sock.recv(_CHUNK)
        if not found:
            raise ConnectionError("the connection was closed")
        return found


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _size(text: str, base: int) -> int:
    # `int` takes signs, spaces and underscores too.
    if not text.isalnum() or not text.isascii():
        raise ProtocolError("the answer's length is none")
    try:
        size = int(text, base)
    except ValueError as fault:
        raise ProtocolError("the answer's length is none") from fault
    if size > _BODY_MAX:
        raise ProtocolError("the answer is too long")
    return size
