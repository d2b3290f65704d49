"""One request's session, from the credential to the answer."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

from flask import Request, Response

from . import _errors
from ._authority import Authority, Data, Opened
from ._data import Wire, decode
from ._errors import CloakroomError, Refused, Unavailable
from ._revocations import instant
from ._session import CSRF_MARK
from ._tokens import AccessClaims, actor_of, own_claims
from ._views import Known, SessionView

if TYPE_CHECKING:
    from ._session import CloakroomSession

_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_OPAQUE = re.compile(r"ck[sra]_.*", re.DOTALL)

#: Where applications write down who is signed in: Flask's tutorial, and Flask-Login.
_USER_KEYS = frozenset(("user_id", "_user_id"))
_FORMER_IS_OVER = ("session_ended", "token_invalid", "conflict")


class Auth:
    """Who is behind a request, and how that is known."""

    def __init__(
        self,
        *,
        sid: str,
        subject: str,
        claims: dict[str, Any],
        auth_time: float,
        amr: list[str],
        acr: str,
        via: Literal["cookie", "bearer"],
        actor: str | None = None,
        token_claims: AccessClaims | None = None,
    ) -> None:
        #: The session's id.
        self.sid = sid
        #: The user, by the name that the sign-in gave.
        self.subject = subject
        #: The session's own claims.
        self.claims = claims
        #: When the user last proved who they are, in seconds since 1970.
        self.auth_time = auth_time
        self.amr = amr
        self.acr = acr
        self.via = via
        #: Who acts as the user, where somebody does: an impersonation.
        self.actor = actor
        #: All claims of the access token, for a request that came by one.
        self.token_claims = token_claims

    @classmethod
    def of_view(cls, view: SessionView) -> Auth | None:
        """By a session's cookie; an anonymous session is nobody's."""
        if view["subject"] is None:
            return None
        return cls(
            sid=view["id"],
            subject=view["subject"],
            claims=view["claims"],
            auth_time=instant(view["auth_time"]),
            amr=view["amr"],
            acr=view["acr"],
            via="cookie",
            actor=view.get("actor"),
        )

    @classmethod
    def of_token(cls, claims: AccessClaims) -> Auth:
        """By an access token."""
        return cls(
            sid=claims["sid"],
            subject=claims["sub"],
            claims=own_claims(claims),
            auth_time=float(claims["auth_time"]),
            amr=list(claims.get("amr", [])),
            acr=str(claims.get("acr", "")),
            via="bearer",
            actor=actor_of(claims),
            token_claims=claims,
        )


class RequestState:
    """What is known of the session behind one request, and what becomes of it."""

    session: CloakroomSession

    def __init__(self, authority: Authority, request: Request, permanent_for: float) -> None:
        self._authority = authority
        self._request = request
        self._permanent_for = permanent_for
        self._known: Known | None = None
        self._opened_here = False
        self._grant: dict[str, Any] = {}
        self._is_lost = False
        self._moves_on = False
        self._auth: Auth | None = None
        #: The value of our cookie, while it counts.
        self.token: str | None = None
        self.token_is_new = False
        #: The value of our cookie whose session another request of this browser has just replaced.
        self._replaced: str | None = None
        #: Why the credential of the request counts for nothing, if it brought one.
        self.refusal: Refused | None = None
        #: That nobody knows.
        self.fault: Unavailable | None = None
        self.drops_cookie = False
        self.is_new = True
        self.by_bearer = False
        #: Whether an old cookie was taken over in this request.
        self.is_migrated = False
        #: How long "remember me" is to last, where the sign-in said so.
        self.remember_for: float | None = None
        #: What this request has said of ``session.permanent``.
        self.permanent_said: bool | None = None
        #: What is to be done to an old credential once the new session is told.
        self.retiring: list[Callable[[Response], None]] = []
        #: The application's user, once it was looked up.
        self.user: Any = None

    @property
    def auth(self) -> Auth | None:
        """Who is signed in. Raises where nobody knows."""
        if self.fault is not None:
            raise self.fault
        return self._auth

    @property
    def view(self) -> SessionView | None:
        """The session of the cookie."""
        return None if self._known is None else self._known.view

    @property
    def sid(self) -> str | None:
        """The session's id, anonymous ones' too."""
        if self._known is not None:
            return self._known.view["id"]
        return None if self._auth is None else self._auth.sid

    @property
    def user_sid(self) -> str | None:
        """The session's id, where somebody is signed in by it."""
        return None if self._auth is None else self._auth.sid

    @property
    def ends_at(self) -> datetime | None:
        """When the session is over at the latest."""
        if self._known is None:
            return None
        return datetime.fromtimestamp(self._known.ends_at, timezone.utc)

    @property
    def lifetime(self) -> float | None:
        """How long the session lives in all, in seconds."""
        view = self.view
        if view is None:
            return None
        return instant(view["expires_at"]) - instant(view["created_at"])

    @property
    def is_over(self) -> bool:
        """Whether the session has ended meanwhile, as far as is known here."""
        sid = self.sid
        return sid is None or self._authority.end_of(sid) is not None

    @property
    def permanent(self) -> bool | None:
        """Whether the cookie outlives the browser, as far as is known without the data."""
        return False if self._known is None else self._known.permanent

    def by_token(self, text: str) -> None:
        """The request came with ``Authorization: Bearer``: that decides, good or bad."""
        self.by_bearer = True
        self.judge(lambda: self._take_access(text))

    def by_cookie(self, token: str) -> None:
        """The request came with our cookie."""
        self.judge(lambda: self._take(token, self._authority.lookup(token)))
        if self.refusal is not None and self.refusal.reason == "replaced":
            self._replaced = token

    def adopt(self, auth: Auth) -> None:
        """The request came with a credential that something else has judged."""
        self._auth = auth
        self.is_new = False

    def take_over(self, body: Mapping[str, Any], retire: Callable[[Response], None]) -> None:
        """Opens a session for what an old cookie held, and retires that with the answer."""
        body = {**body, "delivery": "cookie", "client": self._client()}
        opened = self._authority.open(body)
        self._take_opened(opened, bool(body["data"].get("_permanent")))
        self.is_migrated = True
        self.retiring.append(retire)

    def require(self) -> Auth:
        """Who is signed in, or the refusal."""
        auth = self.auth
        if auth is None:
            raise self.refusal or _errors.credentials_required()
        return auth

    def read_data(self) -> Data:
        """The data of the session; of none, none."""
        if self.fault is not None:
            raise self.fault
        sid = self.sid
        if sid is None:
            return {"data": {}, "etag": '"0"'}
        try:
            found = self._authority.data(sid)
        except Refused as refusal:
            if refusal.status != 401:
                raise
            # It ended after the request had begun.
            self._lose(refusal)
            return {"data": {}, "etag": '"0"'}
        if self._known is not None:
            self._known.permanent = bool(found["data"].get("_permanent"))
        return found

    def save(self, session: CloakroomSession) -> None:
        """Writes down what the request has changed."""
        if self.fault is not None:
            raise self.fault
        if self._is_lost and self.refusal is not None:
            raise self.refusal
        if self.by_bearer and self._auth is None:
            return
        if not dict.__len__(session):
            if self._leaves_nothing():
                self._end()
                return
        elif self.sid is None or self._wants_another():
            self._open_anonymous(session)
            return
        changes = session.changes()
        if self.sid is None or not changes:
            return
        patch = changes.patch()
        if patch is not None:
            self._authority.patch(self.sid, patch)
        else:
            known = session.known()
            self._authority.apply(self.sid, changes.apply, known)  # type: ignore[arg-type]
        session.saved()

    def open_for_csrf(self, session: CloakroomSession) -> str:
        """The key of the session's CSRF tokens; opens an anonymous one where there is none."""
        if self.fault is not None:
            raise self.fault
        if self._known is None or self._wants_another():
            session[CSRF_MARK] = True
            self._open_anonymous(session)
        elif self._auth is None and CSRF_MARK not in session:
            session[CSRF_MARK] = True
        if self._known is None:
            raise _errors.credentials_required()
        return self._known.view["csrf_key"]

    def sign_in(
        self,
        session: CloakroomSession,
        grant: Mapping[str, Any],
        remember_for: float | None,
        *,
        continues: bool = False,
    ) -> Opened:
        """Opens the session of a user whom the application has checked; the present one ends.

        What ``continues`` a session, and was checked by it, is over where that is.
        """
        if self.fault is not None:
            raise self.fault
        is_others = self._is_others(grant["subject"])
        permanent = self.permanent_said if is_others else session.permanent
        if remember_for is not None:
            session.permanent = True
            self.remember_for = remember_for
        elif permanent:
            remember_for = self._permanent_for
        changes = session.changes()
        kept = not (changes.removed or self._moves_on or is_others)
        carries = (self.token or self._replaced) is not None and kept
        data = changes.set if carries or is_others else session.wire()
        if is_others and remember_for is not None:
            data = {**data, "_permanent": True}
        body: dict[str, Any] = {**grant, "data": data}
        if remember_for is not None:
            body |= {"idle_timeout": int(remember_for), "lifetime": int(remember_for)}
        rest = data if is_others else session.wire()
        opened = self._open(body, rest, carries=carries, continues=continues)
        self._grant = {name: value for name, value in grant.items() if name != "epoch"}
        if is_others:
            session.hold(decode(data))
        elif session.is_loaded:
            session.saved()
        if session.is_loaded:
            self._know_permanent(session)
        session.accessed = session.modified = True
        return opened

    def sign_out(self, session: CloakroomSession) -> None:
        """Ends the session."""
        if self.fault is not None:
            raise self.fault
        self._end()
        session.empty()
        session.accessed = True

    def sign_out_everywhere(self, session: CloakroomSession) -> int:
        """Ends every session of the user."""
        auth = self.require()
        if auth.actor is not None:
            raise _errors.on_behalf()
        revoked = self._authority.end_all(auth.subject)
        self._leave()
        session.empty()
        session.accessed = True
        return revoked

    def issue(self, grant: Mapping[str, Any]) -> Opened:
        """A session beside the request's own, for a program that gets tokens."""
        return self._authority.open({**grant, "client": self._client()})

    def forget_user(self) -> None:
        """The session was cleared: it is nobody's any more, and what comes is another's."""
        if not self.by_bearer:
            self._auth, self.user, self._moves_on = None, None, True

    def move_on(self) -> None:
        """What a visitor's session holds goes into a new one; a user's cookie is new already."""
        if not self.by_bearer and self._auth is None:
            self._moves_on = True

    def judge(self, lookup: Callable[[], None]) -> None:
        """Looks a credential up, and keeps the verdict for when it is asked for."""
        try:
            lookup()
        except Unavailable as fault:
            self.fault = fault
        except Refused as refusal:
            if refusal.status != 401:
                # That is about this application, and no verdict about its user.
                self.fault = Unavailable(refusal.detail, error_code=refusal.error_code)
            self.refusal = refusal
            if not self.by_bearer and refusal.error_code != "session_ended":
                # A cookie that is garbled or forged counts as none.
                self.refusal = _errors.credentials_required()

    def _take_access(self, text: str) -> None:
        if _OPAQUE.fullmatch(text):
            raise _errors.token_wrong_type()
        if not _COMPACT.fullmatch(text):
            raise _errors.token_invalid()
        claims = self._authority.access(text)
        self.adopt(Auth.of_token(claims))
        self._authority.note_use(claims["sid"])

    def _take(self, token: str, known: Known) -> None:
        self.token, self._known = token, known
        self._auth = Auth.of_view(known.view)
        self.refusal, self.user, self.is_new = None, None, False

    def _leave(self) -> None:
        self.drops_cookie = self.drops_cookie or self.token is not None
        self.token, self.token_is_new = None, False
        self._known, self._auth, self.user = None, None, None
        self._moves_on = False

    def _lose(self, refusal: Refused) -> None:
        if refusal.reason == "replaced":
            self._replaced = self.token
        self._known, self._auth, self.user, self.token = None, None, None, None
        self.refusal, self._is_lost = refusal, True

    def _end(self) -> None:
        sid = self.sid
        if sid is not None:
            self._authority.end(sid)
        self._leave()

    def _leaves_nothing(self) -> bool:
        """Whether an emptied session ends: one that is nobody's, or was cleared."""
        return self.sid is not None and self._auth is None

    def _wants_another(self) -> bool:
        """Whether what is kept must go into a new session."""
        if self._known is None:
            return False
        # It was told to, or was cleared and used again: whose it was, it is no more. Whoever does
        # that to a visitor's is about to write down who it is, and its cookie may be planted.
        if self._moves_on:
            return True
        # So does an application that keeps its own user there, by Flask's or Flask-Login's name.
        if self._auth is None and not _USER_KEYS.isdisjoint(self.session.changes().set):
            return True
        permanent = bool(dict.get(self.session, "_permanent"))
        turned = permanent and self._known.permanent is False
        # Only an anonymous session, or one that was opened just now: its lifetime is its own.
        return turned and (self._auth is None or self._opened_here)

    def _open_anonymous(self, session: CloakroomSession) -> None:
        signed_in_here = self._opened_here and self._auth is not None
        grant: dict[str, Any] = dict(self._grant) if signed_in_here else {"subject": None}
        if dict.get(session, "_permanent"):
            lifetime = int(self.remember_for or self._permanent_for)
            grant |= {"idle_timeout": lifetime, "lifetime": lifetime}
        data = session.wire()
        # A sign-in of this request that was ended meanwhile isn't done again.
        self._open({**grant, "data": data}, data, carries=False, continues=signed_in_here)
        self._know_permanent(session)
        session.saved()

    def _is_others(self, subject: str) -> bool:
        """Whether the present session is a user's, and not this one's: its data stays behind."""
        former = None if self._known is None else self._known.view["subject"]
        return former is not None and former != subject

    def _open(
        self, body: dict[str, Any], data: Wire, *, carries: bool, continues: bool = False
    ) -> Opened:
        """Opens a session in place of the present one; ``data`` is all that it remembers."""
        if continues and self._is_lost and self.refusal is not None:
            raise self.refusal
        body = {**body, "delivery": "cookie", "client": self._client(body.pop("label", None))}
        # A form that was sent twice signs in once: the authority knows the first one's successor.
        former_token = self.token or (self._replaced if body["subject"] is not None else None)
        if former_token is None:
            opened = self._authority.open(body)
        else:
            former = {"replaces": former_token, "carry_data": carries}
            try:
                opened = self._authority.open({**body, **former})
            except CloakroomError as refusal:
                # The former one was over already, or another request has replaced it: then there
                # is nothing left to end, and its successor is that request's alone. Where the
                # sign-in itself is refused, by an epoch, it is so again.
                if refusal.error_code not in _FORMER_IS_OVER:
                    raise
                if continues:
                    self._leave()
                    raise _errors.session_ended(refusal.reason) from refusal
                opened = self._authority.open({**body, "data": data})
        if (former_sid := self.sid) is not None and self.token is not None:
            self._authority.note_end(former_sid, "replaced")
        self._take_opened(opened)
        return opened

    def _know_permanent(self, session: CloakroomSession) -> None:
        if self._known is not None:
            self._known.permanent = bool(dict.get(session, "_permanent"))

    def _take_opened(self, opened: Opened, permanent: bool | None = None) -> None:
        view = opened["session"]
        known = Known(
            view=view,
            fetched_at=0.0,
            idle_until=instant(view["idle_expires_at"]),
            idle_span=0.0,
            ends_at=instant(view["expires_at"]),
            touched_at=0.0,
            permanent=permanent,
        )
        self._take(opened["session_token"], known)
        self.token_is_new = self._opened_here = self.is_new = True
        self.by_bearer = self._moves_on = False

    def _client(self, label: str | None = None) -> dict[str, str]:
        client = {} if label is None else {"label": label}
        # Behind a socket file there is none.
        with contextlib.suppress(ValueError):
            client["ip"] = str(ipaddress.ip_address(self._request.remote_addr or ""))
        if self._request.user_agent.string:
            client["user_agent"] = self._request.user_agent.string
        return client
