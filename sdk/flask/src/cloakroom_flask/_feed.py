"""A daemon thread that follows the revocation feed, in every process anew."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import _errors
from ._errors import CloakroomError, Refused, Unavailable
from ._http import Transport
from ._revocations import Listener, Revocations, instant

#: A connection without a word for this long is dead: the authority speaks every 500 ms.
_SILENCE_MAX = 5.0
_PAUSE_MIN = 0.2
_PAUSE_MAX = 3.0
#: Clocks further apart than this are told once.
_CLOCK_WARNING = 2.0
_FORGET_EVERY = 10.0
_CHUNK = 64 * 1024


class Feed:
    """Follows ``/admin/v1/revocations/stream`` and knows how old its knowledge is."""

    def __init__(
        self,
        transport: Transport,
        listener: Listener,
        on_beat: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._transport = transport
        self._listener = listener
        self._on_beat = on_beat
        self._logger = logger
        self._clock_told = False
        self._closed = False
        self.reset()

    def reset(self) -> None:
        """Knows nothing, follows nobody: so it begins, and so it is after a fork."""
        self._pid = 0
        self._lock = threading.Lock()
        self.revocations = Revocations(self._listener)
        self._proven_at = 0.0
        self._heard_at = float("-inf")
        self._forgot_at = 0.0
        self._lost = False
        self._misses = 0
        self._connection: http.client.HTTPConnection | None = None
        #: Why the authority refuses to talk to us, if it does.
        self.refused: CloakroomError | None = None

    def ensure_started(self) -> None:
        """Starts the thread where this process has none yet."""
        if self._pid == os.getpid() or self._closed:
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
        threading.Thread(target=self._run, name="cloakroom-feed", daemon=True).start()

    def close(self) -> None:
        """Stops following."""
        self._closed = True
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            # Wakes the thread, which closes the connection.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @property
    def staleness(self) -> float:
        """Seconds since the feed is known to have been complete."""
        return max(time.time() - self._proven_at, time.monotonic() - self._heard_at)

    def is_fresh(self, staleness_max: float) -> bool:
        """Whether endings are known here as soon as they must be, and the clocks agree."""
        behind = self._proven_at - time.time()
        return self.staleness < staleness_max and behind < _CLOCK_WARNING

    def _run(self) -> None:
        pid, pause = os.getpid(), _PAUSE_MIN
        while not self._closed and pid == os.getpid():
            try:
                if self.revocations.cursor is None:
                    self._snapshot()
                for event, entry, cursor in self._events():
                    self._hear(event, entry, cursor)
                    pause = _PAUSE_MIN
            except Exception as fault:
                # Whatever it was: a verifier that follows nobody would be blind for good.
                self._failed(fault)
            # Spread, so that workers don't come back all at once. Not a secret.
            time.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311
            pause = min(_PAUSE_MAX, pause * 2)

    def _snapshot(self) -> None:
        self.revocations.snapshot(self._transport.ask("GET", "/admin/v1/revocations").json())

    def _events(self) -> Iterator[tuple[str, Any, str | None]]:
        headers = {"Accept": "text/event-stream"}
        if self.revocations.cursor is not None:
            headers["Last-Event-ID"] = self.revocations.cursor
        path = "/admin/v1/revocations/stream"
        connection, response = self._transport.stream(path, headers, _SILENCE_MAX)
        self._connection = connection
        self.refused = None
        self._transport.succeeded()
        with contextlib.closing(connection):
            rest = b""
            while not self._closed and (chunk := response.read1(_CHUNK)):
                *blocks, rest = (rest + chunk).split(b"\n\n")
                for block in blocks:
                    if (message := parse(block.decode())) is not None:
                        yield message
        raise ConnectionError("the feed was closed")

    def _hear(self, event: str, entry: Any, cursor: str | None) -> None:
        self.revocations.apply(event, entry, cursor)
        if event == "heartbeat":
            self._beat(instant(entry["at"]))
        elif event == "reset":
            self._heard_at = float("-inf")
            raise ConnectionError("the feed begins anew")

    def _beat(self, at: float) -> None:
        self._proven_at, self._heard_at, self._misses = at, time.monotonic(), 0
        if self._lost:
            self._lost = False
            self._logger.warning("cloakroom: the revocation feed is back")
        apart = abs(time.time() - at)
        if apart > _CLOCK_WARNING and not self._clock_told:
            self._clock_told = True
            self._logger.warning(
                "cloakroom: this clock and the authority's are %d s apart; until they agree "
                "every request asks the authority",
                apart,
            )
        if at - self._forgot_at > _FORGET_EVERY:
            self._forgot_at = at
            self.revocations.forget(at)
        self._on_beat()

    def _failed(self, fault: Exception) -> None:
        if self._closed:
            return
        self._misses += 1
        if isinstance(fault, Refused) and fault.status != 429:
            if self.refused is None:
                self._logger.error("cloakroom: %s", refusal_of_key(self._transport.url, fault))
            self.refused = fault
        elif isinstance(fault, ConnectionRefusedError):
            # An authority that can't be reached at all is told by the transport, once.
            self._transport.failed(fault)
        elif self._misses > 1 and not self._lost and not self._transport.is_down:
            self._lost = True
            self._logger.warning(
                "cloakroom: the revocation feed is lost (%s); requests ask the authority until "
                "it is back",
                fault,
            )


def refusal_of_key(url: str, refusal: CloakroomError) -> str:
    """What to tell whoever runs the application when its API key is refused."""
    if refusal.error_code == "insufficient_scope":
        need = "it needs the scopes sessions:read and sessions:write, and users:read for epoch_of"
    else:
        need = "set CLOAKROOM_API_KEY to a key of this authority"
    return f"the authority at {url} refuses this API key ({refusal.detail}): {need}"


def api_key_refused(url: str, refusal: CloakroomError) -> Unavailable:
    """Our own key is bad: that is no verdict about any user."""
    detail = refusal_of_key(url, refusal)
    return _errors.Unavailable(detail, error_code="api_key_refused", retry_after=5)


def parse(block: str) -> tuple[str, Any, str | None] | None:
    """One message of the stream (WHATWG HTML section 9.2), as far as the authority uses them."""
    fields: dict[str, str] = {}
    for line in block.split("\n"):
        name, colon, value = line.rstrip("\r").partition(":")
        if colon and name:
            fields[name] = value.removeprefix(" ")
    if "event" not in fields or "data" not in fields:
        return None
    return fields["event"], json.loads(fields["data"]), fields.get("id")
