"""Tests of an application without an authority: ``TESTING`` and ``CLOAKROOM_URL = "fake:"``.

app.config.update(TESTING=True, CLOAKROOM_URL="fake:")
Cloakroom(app)
client = app.test_client()
sign_in(client, "ada", claims={"role": "admin"})
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from . import _errors
from ._authority import Apply, Data, Opened
from ._csrf import make_token
from ._data import encode
from ._errors import CloakroomError
from ._revocations import instant
from ._tokens import AccessClaims, own_claims
from ._views import Known, SessionView

_LIFETIME = 7 * 86400
_ACCESS_SECONDS = 900


class FakeAuthority:
    """Sessions in this process, for one test. It obeys the same rules, and checks no signature."""

    def __init__(self) -> None:
        self._views: dict[str, SessionView] = {}
        self._data: dict[str, dict[str, Any]] = {}
        self._versions: dict[str, int] = {}
        self._ended: dict[str, str] = {}
        self._cookies: dict[str, str] = {}
        self._refresh: dict[str, str] = {}
        self._retired: dict[str, float] = {}
        self._epochs: dict[str, int] = {}
        #: Set it, and every question is answered so: such as ``Unavailable("down")``.
        self.fault: Exception | None = None

    def prepare(self) -> None:
        """Nothing is to be prepared."""

    def lookup(self, token: str) -> Known:
        view = self._live(self._cookies.get(token))
        return Known(
            view=view,
            fetched_at=time.monotonic(),
            idle_until=instant(view["idle_expires_at"]),
            idle_span=float(_LIFETIME),
            ends_at=instant(view["expires_at"]),
            touched_at=time.time(),
        )

    def access(self, token: str) -> AccessClaims:
        claims = _read(token)
        if time.time() >= claims.get("exp", 0):
            raise _errors.token_expired()
        self._live(claims.get("sid"))
        return claims

    def alias(self, handle: str, body: Mapping[str, Any]) -> Known:
        if handle not in self._cookies:
            self._cookies[handle] = self.open(body)["session"]["id"]
        return self.lookup(handle)

    def retired_at(self, handle: str, lifetime: float) -> float | None:
        if handle in self._retired:
            return self._retired[handle]
        self._retired[handle] = time.time()
        return None

    def data(self, sid: str) -> Data:
        self._live(sid)
        found = json.loads(json.dumps(self._data[sid]))
        return {"data": found, "etag": f'"{self._versions[sid]}"'}

    def patch(self, sid: str, patch: Mapping[str, Any]) -> None:
        self._live(sid)
        for key, value in patch.items():
            if value is None:
                self._data[sid].pop(key, None)
            else:
                self._data[sid][key] = value
        self._versions[sid] += 1

    def apply(self, sid: str, change: Apply, known: Data | None) -> None:
        self._live(sid)
        self._data[sid] = change(self._data[sid])
        self._versions[sid] += 1

    def open(self, body: Mapping[str, Any]) -> Opened:
        if self.fault is not None:
            raise self.fault
        data = dict(body.get("data") or {})
        if body.get("epoch") not in (None, self.epoch_of(str(body["subject"]))):
            raise CloakroomError("conflict", 409, "the epoch has moved")
        if (former := body.get("replaces")) is not None:
            replaced = self._live(self._cookies.get(former))
            sid = replaced["id"]
            # A visitor's data is the user's from then on; another user's stays behind.
            is_own = replaced["subject"] in (None, body.get("subject"))
            if body.get("carry_data") and is_own:
                data = {**self._data[sid], **data}
            self._ended[sid] = "replaced"
        view = _view(body)
        sid = view["id"]
        self._views[sid], self._data[sid], self._versions[sid] = view, data, 1
        if body.get("delivery") == "bearer":
            return self._tokens(view)
        token = f"cks_{secrets.token_urlsafe(32)}"
        self._cookies[token] = sid
        return {"session": view, "session_token": token}

    def epoch_of(self, subject: str) -> int:
        return self._epochs.get(subject, 0)

    def end(self, sid: str) -> None:
        if self.fault is not None:
            raise self.fault
        self._ended.setdefault(sid, "signed_out")

    def end_all(self, subject: str) -> int:
        if self.fault is not None:
            raise self.fault
        live = [
            sid
            for sid, view in self._views.items()
            if view["subject"] == subject and sid not in self._ended
        ]
        self._ended.update(dict.fromkeys(live, "signed_out_everywhere"))
        self._epochs[subject] = self.epoch_of(subject) + 1
        return len(live)

    def end_of(self, sid: str) -> str | None:
        return self._ended.get(sid)

    def note_end(self, sid: str, reason: str) -> None:
        self._ended.setdefault(sid, reason)

    def refresh(self, token: str, idempotency_key: str | None) -> dict[str, Any]:
        if token.count(".") == 2:
            raise _errors.token_wrong_type()
        view = self._live(self._refresh.pop(token, None))
        tokens: dict[str, Any] = {**self._tokens(view)}
        del tokens["session"]
        return tokens

    def note_use(self, sid: str) -> None:
        """Nothing idles here."""

    def _live(self, sid: str | None) -> SessionView:
        if self.fault is not None:
            raise self.fault
        if sid is None or sid not in self._views:
            raise _errors.token_invalid()
        if sid in self._ended:
            raise _errors.session_ended(self._ended[sid])
        return self._views[sid]

    def _tokens(self, view: SessionView) -> Opened:
        refresh = f"ckr_{secrets.token_urlsafe(32)}"
        self._refresh[refresh] = view["id"]
        return {
            "session": view,
            "access_token": _written(view),
            "token_type": "Bearer",
            "expires_in": _ACCESS_SECONDS,
            "refresh_token": refresh,
            "refresh_expires_in": _LIFETIME,
        }


def sign_in(
    client: FlaskClient,
    subject: str,
    claims: Mapping[str, Any] | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    auth_time: float | None = None,
) -> str:
    """Gives the test client the cookie of a signed-in user. Returns a CSRF token.

    ``data`` is what ``flask.session`` holds; ``auth_time`` makes the sign-in an old one.
    """
    app = client.application
    authority = _fake_of(app)
    body = {"subject": subject, "claims": claims or {}, "data": encode(data or {})}
    opened = authority.open(body)
    if auth_time is not None:
        opened["session"]["auth_time"] = _rfc3339(auth_time)
    with app.test_request_context():
        name = app.session_interface.get_cookie_name(app)
    client.set_cookie(name, opened["session_token"])
    return make_token(opened["session"]["csrf_key"])


def bearer(app: Flask, subject: str, claims: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The header ``Authorization`` of a signed-in program."""
    body = {"subject": subject, "claims": claims or {}, "delivery": "bearer"}
    opened = _fake_of(app).open(body)
    return {"Authorization": f"Bearer {opened['access_token']}"}


def _fake_of(app: Flask) -> FakeAuthority:
    authority = app.extensions["cloakroom"].authority
    if not isinstance(authority, FakeAuthority):
        raise RuntimeError("set TESTING and CLOAKROOM_URL = 'fake:' before Cloakroom(app)")
    return authority


def _view(body: Mapping[str, Any]) -> SessionView:
    now = time.time()
    end = now + float(body.get("lifetime", _LIFETIME))
    client = body.get("client") or {}
    names = ("ip", "user_agent", "browser", "os", "device", "label")
    return {
        "id": secrets.token_hex(13).upper(),
        "subject": body["subject"],
        "created_at": _rfc3339(now),
        "last_seen_at": _rfc3339(now),
        "auth_time": _rfc3339(now),
        "idle_expires_at": _rfc3339(end),
        "expires_at": _rfc3339(end),
        "amr": list(body.get("amr") or []),
        "acr": body.get("acr") or ("aal0" if body["subject"] is None else "aal1"),
        "delivery": body.get("delivery", "cookie"),
        "actor": body.get("actor"),
        "claims": dict(body.get("claims") or {}),
        "client": {name: client.get(name) for name in names},
        "csrf_key": secrets.token_urlsafe(32),
    }


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat().replace("+00:00", "Z")


def _written(view: SessionView) -> str:
    now = int(time.time())
    claims = {
        **own_claims(view["claims"]),
        "iss": "fake:",
        "sub": view["subject"],
        "aud": "cloakroom",
        "exp": now + _ACCESS_SECONDS,
        "nbf": now,
        "iat": now,
        "jti": secrets.token_urlsafe(12),
        "sid": view["id"],
        "auth_time": int(instant(view["auth_time"])),
        "amr": view["amr"],
        "acr": view["acr"],
        "epoch": 0,
    }
    if (actor := view.get("actor")) is not None:
        claims["act"] = {"sub": actor}
    header = {"alg": "none", "typ": "at+jwt"}
    parts = (base64.urlsafe_b64encode(json.dumps(one).encode()) for one in (header, claims))
    head, body = (part.rstrip(b"=").decode() for part in parts)
    return f"{head}.{body}.fake"


def _read(token: str) -> AccessClaims:
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        raise _errors.token_invalid() from None
    if not isinstance(claims, dict):
        raise _errors.token_invalid()
    return claims
