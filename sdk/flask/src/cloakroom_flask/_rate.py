"""Limits for each signed-in session, counted in this process."""

from __future__ import annotations

import functools
import ipaddress
import threading
import time
from collections.abc import Callable
from math import ceil
from typing import Any, NamedTuple, TypeVar

from flask import after_this_request, current_app, request
from flask.globals import request_ctx

from ._bounded import Bounded
from ._config import Duration, limit, seconds
from ._errors import Refused
from ._session import CloakroomSession, session_in

F = TypeVar("F", bound=Callable[..., Any])

_COUNTED_MAX = 100_000


class Admission(NamedTuple):
    """What becomes of one request."""

    admitted: bool
    #: How many more would go through right now.
    remaining: int
    #: Whole seconds until one goes through again.
    retry_after: int


class Limiter:
    """So many at once, then one for each share of the window that passes (GCRA), for each key."""

    def __init__(self, count: int, window: float) -> None:
        self.count = count
        self.window = window
        self._arrivals: Bounded[str, float] = Bounded(_COUNTED_MAX)
        self._lock = threading.Lock()

    def admit(self, key: str, now: float) -> Admission:
        """Counts one more, unless that is one too many."""
        share = self.window / self.count
        with self._lock:
            arrival = min(max(self._arrivals.get(key) or 0.0, now), now + self.window)
            following = arrival + share
            beyond = following - now - self.window
            # A millionth of a second: shares of a window need not be whole.
            if beyond > 1e-6:
                return Admission(False, 0, max(1, ceil(beyond)))
            self._arrivals.put(key, following)
        remaining = int((self.window - (following - now)) / share + 1e-6)
        return Admission(True, remaining, ceil(following - now))


class RateLimit:
    """A limit: a decorator of views, or, as ``check``, for ``before_request``."""

    def __init__(
        self,
        count: int | str | None,
        window: Duration | None,
        key: Callable[[], str] | None,
    ) -> None:
        if isinstance(count, str):
            count, window = limit(count)
        self._given = None if count is None else (count, seconds(window or "15m"))
        self._key = key
        self._limiter: Limiter | None = None

    def __call__(self, view: F) -> F:
        @functools.wraps(view)
        def limited(*args: Any, **kwargs: Any) -> Any:
            self.check()
            return current_app.ensure_sync(view)(*args, **kwargs)

        return limited  # type: ignore[return-value]

    def check(self) -> None:
        """Counts the request; refuses it where it is one too many."""
        limiter = self._counting()
        kind, key = self._whom()
        admission = limiter.admit(key, time.monotonic())
        headers = {
            "RateLimit-Policy": f'"{kind}";q={limiter.count};w={round(limiter.window)}',
            "RateLimit": f'"{kind}";r={admission.remaining};t={admission.retry_after}',
        }
        if not admission.admitted:
            raise Refused(
                "rate_limited",
                429,
                "too many requests; try again later",
                retry_after=admission.retry_after,
                limits=headers,
            )

        @after_this_request
        def tell(response: Any) -> Any:
            response.headers.update(headers)
            return response

    def _counting(self) -> Limiter:
        if self._limiter is None:
            settings = current_app.extensions["cloakroom"].settings
            self._limiter = Limiter(*(self._given or settings.rate_limit))
        return self._limiter

    def _whom(self) -> tuple[str, str]:
        if self._key is not None:
            return "key", self._key()
        session = session_in(request_ctx)
        # A session that anybody can have is no measure: a fresh one would be a fresh quota.
        sid = session.state.user_sid if isinstance(session, CloakroomSession) else None
        if sid is not None:
            return "session", f"session {sid}"
        return "network", f"network {network_of(request.remote_addr)}"


def rate_limit(
    count: int | str | None = None,
    window: Duration | None = None,
    *,
    key: Callable[[], str] | None = None,
) -> RateLimit:
    """At most so many requests of one signed-in session, and for all others of one network.

    ``rate_limit("5/1m")``, or ``rate_limit(5, "1m")``; without arguments
    ``CLOAKROOM_RATE_LIMIT``. Each process counts for itself.
    """
    return RateLimit(count, window, key)


def network_of(address: str | None) -> str:
    """The network of an address: an IPv6 subscriber has a /64 to choose from."""
    try:
        known = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((known, 64), strict=False))
