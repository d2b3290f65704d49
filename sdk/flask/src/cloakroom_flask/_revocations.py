"""What the revocation feed has told so far. No clock, no network: section 7 of the contract."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

#: Tokens issued up to this long after an ``all`` are over too, in seconds.
_ALL_MARGIN = 5.0
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
#: Longer than any access token lives, in seconds.
_TOKEN_LIFE_MAX = 7 * 86400.0


def instant(text: str) -> float:
    """An RFC 3339 time as seconds since 1970."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time")
    whole, fraction, offset = match.groups()
    # Python 3.10 knows neither the Z nor any number of digits.
    at = datetime.fromisoformat(whole + ("+00:00" if offset in "Zz" else offset))
    return at.timestamp() + float(f"0.{fraction or 0}")


class Against(NamedTuple):
    """What the feed has against an access token."""

    error_code: str
    reason: str | None = None


class Raised(NamedTuple):
    """Sessions of a lower epoch are over, but for one that was taken along."""

    epoch: int
    spared: str | None
    heard_at: float


class Listener:
    """Hears what must be dropped. The defaults do nothing."""

    def session(self, sid: str) -> None:
        """Drop what is known of this session."""

    def subject(self, subject: str) -> None:
        """Drop what is known of this subject's sessions."""

    def key(self, kid: str, state: str) -> None:
        """A signing key came, went, or was revoked."""

    def keys_unknown(self) -> None:
        """Keys may have come and gone that nobody told of."""

    def everything(self) -> None:
        """Drop all that is known."""


class Revocations:
    """Endings, as far as they were told. Applying an event twice changes nothing."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.cursor: str | None = None
        self._ended: dict[str, tuple[str, float]] = {}
        self._stepped_up: dict[str, float] = {}
        self._subjects: dict[str, Raised] = {}
        self._tokens: dict[str, float] = {}
        self._keys: dict[str, str] = {}
        self._all = -math.inf
        self._now = 0.0

    def snapshot(self, told: Mapping[str, Any]) -> None:
        """Begins anew from ``GET /admin/v1/revocations``; what is known to be over stays so."""
        # What was cached before may have ended in a while that no log tells of any more, and keys
        # may have been revoked and removed in it: the key set knows those that are left.
        self._listener.everything()
        self._keys = {kid: state for kid, state in self._keys.items() if state == "revoked"}
        self._listener.keys_unknown()
        for entry in told["sessions"]:
            self._session(entry)
        for entry in told["subjects"]:
            self._subject(entry)
        for entry in told["tokens"]:
            self._token(entry)
        for entry in told["keys"]:
            self._key(entry)
        if told["all"] is not None:
            self._everything(told["all"])
        self.cursor = told["cursor"]

    def apply(self, event: str, entry: Mapping[str, Any], cursor: str | None) -> None:
        """One event of the stream. Those that a later release may send change nothing."""
        handlers: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "session": self._session,
            "subject": self._subject,
            "token": self._token,
            "key": self._key,
            "all": self._everything,
            "changed": self._changed,
        }
        if event == "reset":
            self.reset()
            return
        if event in handlers:
            handlers[event](entry)
        if cursor is not None:
            self.cursor = cursor

    def reset(self) -> None:
        """What was heard doesn't lead to what comes: a snapshot must follow."""
        self.cursor = None
        self._listener.everything()

    def note_end(self, sid: str, reason: str, until: float) -> None:
        """An ending that this process made or met itself, before the feed tells it."""
        self._ended.setdefault(sid, (reason, until))
        self._listener.session(sid)

    def end_of(self, sid: str) -> str | None:
        """Why the session is over; ``None``: nothing is known against it."""
        found = self._ended.get(sid)
        return None if found is None else found[0]

    def is_key_gone(self, kid: str) -> bool:
        """Whether what this key has signed counts no more, as far as was told."""
        return self._keys.get(kid) in ("revoked", "removed")

    def against(self, claims: Mapping[str, Any]) -> Against | None:
        """What there is against a genuine access token."""
        sid = claims["sid"]
        if (reason := self.end_of(sid)) is not None:
            return Against("session_ended", reason)
        if claims["jti"] in self._tokens:
            return Against("token_invalid")
        raised = self._subjects.get(claims["sub"])
        if raised is not None and claims["epoch"] < raised.epoch:
            if raised.spared == sid:
                return Against("token_expired")
            return Against("session_ended", "signed_out_everywhere")
        if claims["iat"] <= self._all + _ALL_MARGIN:
            return Against("session_ended", "ended_by_operator")
        stepped_up = self._stepped_up.get(sid)
        if stepped_up is not None and claims["auth_time"] < math.floor(stepped_up):
            return Against("token_invalid")
        return None

    def forget(self, now: float) -> None:
        """Drops what nothing genuine can meet any more."""
        # Other threads note endings meanwhile: each list is made in one go.
        self._now = now
        old = now - _TOKEN_LIFE_MAX
        for subject in [
            s for s, raised in list(self._subjects.items()) if 0 < raised.heard_at < old
        ]:
            del self._subjects[subject]
        for sid in [sid for sid, at in list(self._stepped_up.items()) if at < old]:
            del self._stepped_up[sid]
        for sid in [sid for sid, (_, until) in list(self._ended.items()) if until <= now]:
            del self._ended[sid]
        for jti in [jti for jti, until in list(self._tokens.items()) if until <= now]:
            del self._tokens[jti]

    def _session(self, entry: Mapping[str, Any]) -> None:
        sid = entry["sid"]
        if "until" in entry:
            self._ended[sid] = (entry["reason"], instant(entry["until"]))
            self._stepped_up.pop(sid, None)
        elif "auth_time" in entry:
            # A stream that was resumed may tell an earlier one again.
            at = instant(entry["auth_time"])
            self._stepped_up[sid] = max(at, self._stepped_up.get(sid, at))
        self._listener.session(sid)

    def _subject(self, entry: Mapping[str, Any]) -> None:
        subject, epoch = entry["subject"], entry["epoch"]
        known = self._subjects.get(subject)
        if known is None or known.epoch < epoch:
            self._subjects[subject] = Raised(epoch, entry.get("except"), self._now)
        self._listener.subject(subject)

    def _token(self, entry: Mapping[str, Any]) -> None:
        self._tokens[entry["jti"]] = instant(entry["until"])

    def _key(self, entry: Mapping[str, Any]) -> None:
        # Later it is removed as well, like one that was merely retired: it stays revoked.
        if self._keys.get(entry["kid"]) != "revoked":
            self._keys[entry["kid"]] = entry["state"]
        self._listener.key(entry["kid"], entry["state"])

    def _everything(self, entry: Mapping[str, Any]) -> None:
        self._all = max(self._all, instant(entry["at"]))
        self._listener.everything()

    def _changed(self, entry: Mapping[str, Any]) -> None:
        if "sid" in entry:
            self._listener.session(entry["sid"])
        if "subject" in entry:
            self._listener.subject(entry["subject"])
