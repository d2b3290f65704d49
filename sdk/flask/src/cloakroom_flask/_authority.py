"""The authority as the extension uses it: asked seldom, followed closely."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

from . import _errors
from ._bounded import Bounded
from ._config import Settings
from ._errors import CloakroomError, ConfigurationError, Refused, Unavailable
from ._feed import Feed, api_key_refused, refusal_of_key
from ._http import Transport, segment
from ._revocations import Listener, instant
from ._tokens import AccessClaims, TokenVerifier
from ._views import Known, SessionView, Views
from ._wire import Reply

_CACHED_MAX = 10_000
#: A view is asked for anew after this long, whatever the feed says.
_VIEW_SECONDS = 60.0
#: Activity is reported this often, each time for at most so many sessions.
_TOUCH_SECONDS = 1.0
_TOUCH_MAX = 1_000
#: A session in use is reported after this part of its idle timeout, and at most this seldom.
_TOUCH_SHARE = 20
_TOUCH_SLACK_MAX = 30.0
#: An answer may be overtaken by this many changes before it is taken as it is.
_OVERTAKEN_MAX = 3
#: How long a version that others change too is tried for, in seconds.
_CHANGE_SECONDS = 5.0
_KEPT_SECONDS = 86_400.0
_EVERYTHING = "*"
#: After so many heartbeats all that happened before has been told.
_SETTLING_BEATS = 3


class Opened(TypedDict, total=False):
    """An opened session with its credentials, which are told this once."""

    session: SessionView
    session_token: str
    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int


class Data(TypedDict):
    """A session's data and its version."""

    data: dict[str, Any]
    etag: str


#: Makes the wished-for data of what is there; for changes that a merge patch can't tell.
Apply = Callable[[dict[str, Any]], dict[str, Any]]


class Authority(Protocol):
    """What the extension needs; the one for tests keeps it all in memory."""

    def prepare(self) -> None:
        """Called before each request."""

    def lookup(self, token: str) -> Known:
        """The live session of a session cookie."""

    def access(self, token: str) -> AccessClaims:
        """The claims of a valid access token of a live session."""

    def alias(self, handle: str, body: Mapping[str, Any]) -> Known:
        """The session under a handle of an old credential; ``body`` opens it the first time."""

    def retired_at(self, handle: str, lifetime: float) -> float | None:
        """Since when an old credential is retired; the first to ask retires it, for so long."""

    def data(self, sid: str) -> Data:
        """The data of a session."""

    def patch(self, sid: str, patch: Mapping[str, Any]) -> None:
        """Sets and removes keys of a session's data; others' changes to other keys stay."""

    def apply(self, sid: str, change: Apply, known: Data | None) -> None:
        """Changes a session's data under its version."""

    def open(self, body: Mapping[str, Any]) -> Opened:
        """Opens a session."""

    def epoch_of(self, subject: str) -> int:
        """How often a subject's sessions were all ended."""

    def end(self, sid: str) -> None:
        """Ends a session; one that is over already is fine."""

    def end_all(self, subject: str) -> int:
        """Ends every session of a subject."""

    def end_of(self, sid: str) -> str | None:
        """Why a session is over, as far as is known here."""

    def note_end(self, sid: str, reason: str) -> None:
        """Notes an ending of our own making, before the feed tells it."""

    def refresh(self, token: str, idempotency_key: str | None) -> dict[str, Any]:
        """Rotates a refresh token."""

    def note_use(self, sid: str) -> None:
        """Notes a use of a session that no lookup saw."""


@dataclass(eq=False)
class _Flight:
    """A question on its way, and what the feed told meanwhile."""

    heard: set[str] = field(default_factory=set)

    def is_late(self, view: SessionView) -> bool:
        names = (view["id"], f"subject {view['subject']}", _EVERYTHING)
        return any(name in self.heard for name in names)


class RemoteAuthority(Listener):
    """An authority behind its admin listener."""

    def __init__(self, settings: Settings, logger: logging.Logger) -> None:
        self._settings = settings
        self._logger = logger
        self.transport = Transport(
            settings.url, settings.api_key, settings.timeout, settings.ca_file, logger
        )
        self.feed = Feed(self.transport, self, self._on_beat, logger)
        self.tokens = TokenVerifier(
            self.transport, lambda: self.feed.revocations, settings.audience, settings.issuer
        )
        self._reset_cache()
        ours = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forked(ours()))

    def reset(self) -> None:
        """Begins anew in a forked process: connections, locks and thread are the parent's."""
        self.transport.reset()
        self.feed.reset()
        self.tokens.reset()
        self._reset_cache()

    def _reset_cache(self) -> None:
        self._lock = threading.Lock()
        self._views = Views(_CACHED_MAX)
        self._dead: Bounded[str, str | None] = Bounded(_CACHED_MAX)
        self._flights: set[_Flight] = set()
        self._touched: set[str] = set()
        self._unsettled: dict[str, int] = {}
        self._flushed_at = 0.0

    def check(self) -> None:
        """Raises :class:`ConfigurationError` where the API key can't work."""
        try:
            self.transport.ask("GET", "/admin/v1/sessions?limit=1")
            self.transport.ask("POST", "/admin/v1/sessions/touch", {})
        except Refused as refusal:
            if refusal.status == 429:
                return
            raise ConfigurationError(refusal_of_key(self._settings.url, refusal)) from None
        except CloakroomError:
            # The transport has told it; the application starts, and answers 503 until it is there.
            return

    def prepare(self) -> None:
        self.feed.ensure_started()

    def close(self) -> None:
        """Stops following the authority."""
        self.feed.close()

    @property
    def is_fresh(self) -> bool:
        """Whether endings are known here as soon as they must be."""
        return self.feed.is_fresh(self._settings.max_staleness)

    def lookup(self, token: str) -> Known:
        digest = hashlib.sha256(token.encode()).hexdigest()
        return self._cached(digest, lambda: self._verify(token))

    def alias(self, handle: str, body: Mapping[str, Any]) -> Known:
        return self._cached(f"handle {handle}", lambda: self._handle(handle, body))

    def retired_at(self, handle: str, lifetime: float) -> float | None:
        path = f"/admin/v1/handles/{handle}"
        reply = self._about_session("GET", path, expect=(404, 409))
        if reply.status == 200:
            return instant(reply.json()["session"]["created_at"])
        if reply.status == 409:
            return 0.0
        seconds = int(lifetime)
        body = {"data": {"retired": True}, "idle_timeout": seconds, "lifetime": seconds}
        self._about_session("PUT", path, body)
        return None

    def _handle(self, handle: str, body: Mapping[str, Any]) -> SessionView:
        path = f"/admin/v1/handles/{handle}"
        reply = self._about_session("GET", path, expect=(404, 409))
        if reply.status == 404:
            reply = self._about_session("PUT", path, body, expect=(409,))
        found = reply.json()
        if reply.status == 409:
            raise _errors.session_ended(found.get("reason"))
        view: SessionView = found["session"]
        return view

    def _cached(self, digest: str, ask: Callable[[], SessionView]) -> Known:
        if digest in self._dead:
            raise _errors.session_ended(self._dead.get(digest))
        known = self._views.get(digest) if self.is_fresh else None
        if known is not None and _is_current(known):
            self._note(known)
            return known
        return self._fetch(digest, ask)

    def access(self, token: str) -> AccessClaims:
        if self.is_fresh:
            claims = self.tokens.verify(token)
            if claims is not None and claims["sub"] not in self._unsettled:
                return claims
        self._verify(token)
        return self.tokens.unverified(token)

    def data(self, sid: str) -> Data:
        return _data_of(self._about_session("GET", f"/admin/v1/sessions/{sid}/data"))

    def patch(self, sid: str, patch: Mapping[str, Any]) -> None:
        self._about_session("PATCH", f"/admin/v1/sessions/{sid}/data", patch)

    def apply(self, sid: str, change: Apply, known: Data | None) -> None:
        path = f"/admin/v1/sessions/{sid}/data"
        until = time.monotonic() + _CHANGE_SECONDS
        while True:
            found = known or self.data(sid)
            known = None
            headers = {"If-Match": found["etag"]}
            reply = self._about_session(
                "PUT", path, change(found["data"]), headers=headers, expect=(412,)
            )
            if reply.status != 412:
                return
            if time.monotonic() > until:
                raise Unavailable("the session's data changes faster than it can be saved")

    def open(self, body: Mapping[str, Any]) -> Opened:
        # A visitor's successor is told to nobody but this call, which may have to be sent twice.
        is_visitors = body.get("subject") is None and "replaces" in body
        headers = {"Idempotency-Key": str(uuid.uuid4())} if is_visitors else {}
        reply = self._about_session("POST", "/admin/v1/sessions", body, headers=headers)
        opened: Opened = reply.json()
        return opened

    def epoch_of(self, subject: str) -> int:
        path = f"/admin/v1/subjects/{segment(subject)}"
        reply = self._about_session("GET", path, expect=(404,))
        # Who never had a session isn't known yet.
        return 0 if reply.status == 404 else int(reply.json()["subject"]["epoch"])

    def end(self, sid: str) -> None:
        self._about_session("DELETE", f"/admin/v1/sessions/{sid}?reason=signed_out", expect=(404,))
        self.note_end(sid, "signed_out")

    def end_all(self, subject: str) -> int:
        path = f"/admin/v1/subjects/{segment(subject)}/sessions"
        revoked: int = self._about_session("DELETE", path).json()["revoked"]
        self.subject(subject)
        # Its tokens are over from now on, and the feed tells so with its next beats at the latest.
        self._unsettled[subject] = _SETTLING_BEATS
        return revoked

    def note_end(self, sid: str, reason: str) -> None:
        self.feed.revocations.note_end(sid, reason, time.time() + _KEPT_SECONDS)

    def end_of(self, sid: str) -> str | None:
        return self.feed.revocations.end_of(sid)

    def refresh(self, token: str, idempotency_key: str | None) -> dict[str, Any]:
        form = {"grant_type": "refresh_token", "refresh_token": token}
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        reply = self.transport.ask(
            "POST", "/oauth2/token", form=form, headers=headers, expect=(400, 401)
        )
        if reply.status == 200:
            tokens: dict[str, Any] = reply.json()
            return tokens
        raise _refresh_refusal(reply)

    def note_use(self, sid: str) -> None:
        self._touched.add(sid)

    def flush(self) -> None:
        """Reports which sessions were used."""
        sids = list(self._touched)[:_TOUCH_MAX]
        if not sids:
            return
        self._touched.difference_update(sids)
        at = time.time()
        try:
            self.transport.ask("POST", "/admin/v1/sessions/touch", {"sids": sids})
        except CloakroomError:
            # They were used all the same: told with the next batch.
            self._touched.update(sids)
            return
        for sid in sids:
            self._slid(sid, at)

    def session(self, sid: str) -> None:
        self._heard(sid)
        self._views.drop_session(sid)

    def subject(self, subject: str) -> None:
        self._heard(f"subject {subject}")
        self._views.drop_subject(subject)

    def key(self, kid: str, state: str) -> None:
        self.tokens.key_changed(kid, state)

    def keys_unknown(self) -> None:
        self.tokens.forget_keys()

    def everything(self) -> None:
        self._heard(_EVERYTHING)
        self._views.clear()

    def _heard(self, name: str) -> None:
        # Before anything is dropped: what a flight brings now is kept, and dropped after this;
        # or it isn't kept.
        with self._lock:
            for flight in self._flights:
                flight.heard.add(name)

    def _on_beat(self) -> None:
        for subject, beats in list(self._unsettled.items()):
            if beats > 1:
                self._unsettled[subject] = beats - 1
            else:
                self._unsettled.pop(subject, None)
        now = time.monotonic()
        if now - self._flushed_at >= _TOUCH_SECONDS:
            self._flushed_at = now
            self.flush()

    def _fetch(self, digest: str, ask: Callable[[], SessionView]) -> Known:
        flight = _Flight()
        with self._lock:
            self._flights.add(flight)
        try:
            for attempt in range(1, _OVERTAKEN_MAX + 1):
                flight.heard.clear()
                view = ask()
                # The answer may be older than what the feed has told since.
                if (reason := self.end_of(view["id"])) is not None:
                    raise _errors.session_ended(reason)
                with self._lock:
                    late = flight.is_late(view)
                    if not late or attempt == _OVERTAKEN_MAX:
                        return self._keep(digest, view, store=not late)
            raise AssertionError("the last attempt returns")
        except Refused as refusal:
            if refusal.error_code == "session_ended":
                # It never lives again, so it needn't be asked for again.
                self._dead.put(digest, refusal.reason)
            raise
        finally:
            with self._lock:
                self._flights.discard(flight)

    def _keep(self, digest: str, view: SessionView, *, store: bool) -> Known:
        idle_until = instant(view["idle_expires_at"])
        known = Known(
            view=view,
            fetched_at=time.monotonic(),
            idle_until=idle_until,
            idle_span=idle_until - instant(view["last_seen_at"]),
            ends_at=instant(view["expires_at"]),
            touched_at=time.time(),
        )
        if store:
            self._views.put(digest, known)
        return known

    def _verify(self, token: str) -> SessionView:
        reply = self._about_session("POST", "/admin/v1/sessions/verify", {"token": token})
        view: SessionView = reply.json()["session"]
        return view

    def _note(self, known: Known) -> None:
        now = time.time()
        if now - known.touched_at >= min(_TOUCH_SLACK_MAX, known.idle_span / _TOUCH_SHARE):
            known.touched_at = now
            self.note_use(known.view["id"])

    def _slid(self, sid: str, at: float) -> None:
        for known in self._views.of_session(sid):
            known.idle_until = max(known.idle_until, at + known.idle_span)

    def _about_session(self, method: str, path: str, body: Any = None, **rest: Any) -> Reply:
        """Asks; a 401 that is about our own API key must not sign a user out."""
        try:
            return self.transport.ask(method, path, body, **rest)
        except Refused as refusal:
            if refusal.error_code == "insufficient_scope":
                raise api_key_refused(self._settings.url, refusal) from refusal
            if refusal.status == 401 and not self.is_fresh:
                self._prove_key()
            raise

    def _prove_key(self) -> None:
        try:
            self.transport.ask("GET", "/admin/v1/sessions?limit=1")
        except Refused as refusal:
            if refusal.status == 429:
                raise
            raise api_key_refused(self._settings.url, refusal) from refusal


def _forked(authority: RemoteAuthority | None) -> None:
    if authority is not None:
        authority.reset()


def _is_current(known: Known) -> bool:
    now = time.time()
    in_time = now < known.idle_until and now < known.ends_at
    return in_time and time.monotonic() - known.fetched_at < _VIEW_SECONDS


def _data_of(reply: Reply) -> Data:
    return {"data": reply.json(), "etag": reply.headers.get("etag", '"0"')}


#: RFC 6749 has one error for all bad refresh tokens; without a code its words tell them apart.
_REFRESH_REFUSALS = {
    "the token has expired": "token_expired",
    "the token is invalid": "token_invalid",
    "a credential of another type belongs here": "token_wrong_type",
    "the refresh token was used before; the session has been ended": "refresh_token_reused",
    "the session has ended": "session_ended",
}


def _refresh_refusal(reply: Reply) -> CloakroomError:
    told = reply.json()
    found = told if isinstance(told, dict) else {}
    detail = str(found.get("error_description", ""))
    code = found.get("code") or _REFRESH_REFUSALS.get(detail, "token_invalid")
    return Refused(str(code), 401, detail, reason=found.get("reason"))
