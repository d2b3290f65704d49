"""Sessions of before, moved at their next request: nobody is signed out by a deployment.

Cloakroom(app, legacy=[SignedCookie()])                     # Flask's own signed cookie
Cloakroom(app, legacy=[FlaskSessionRedis(redis)])           # Flask-Session on Redis
Cloakroom(app, legacy=[HmacTokens(secret)])                 # PyJWT, HS256
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jwt
from flask import Response
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadSignature, Signer

from . import _errors
from ._authority import Authority
from ._data import encode
from ._extension import Legacy, OldRequest, cookie_of
from ._state import Auth

__all__ = ["FlaskSessionRedis", "HmacTokens", "Legacy", "OldRequest", "SignedCookie", "user_id"]

#: An old credential is still taken for so long after it was retired, in seconds: for requests
#: that were on their way together with the first.
GRACE = 60.0

#: What an old session says about its user.
Subject = Callable[[Mapping[str, Any]], Any]
Claims = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def user_id(data: Mapping[str, Any]) -> Any:
    """Whose an old session is: as Flask-Login kept it, or as most applications do."""
    return data.get("_user_id", data.get("user_id"))


class _OldCookie:
    """What the readers of cookies share."""

    def __init__(self, subject: Subject, claims: Claims | None, cookie_name: str | None) -> None:
        self._subject = subject
        self._claims = claims
        self._cookie_name = cookie_name

    def adopt_bearer(self, old: OldRequest, token: str) -> bool:
        """A bearer token is none of these."""
        return False

    def refresh(self, authority: Authority, token: str) -> dict[str, Any] | None:
        """Cookies have no refresh tokens."""
        return None

    def _cookie(self, old: OldRequest) -> tuple[str, str | None]:
        name = self._cookie_name or old.app.config["SESSION_COOKIE_NAME"]
        value = cookie_of(old.request, name)
        return name, None if value is None or value.startswith("cks_") else value

    def _open(
        self, old: OldRequest, name: str, data: Mapping[str, Any], done: Callable[[], None]
    ) -> None:
        subject = self._subject(data)
        body: dict[str, Any] = {
            "subject": None if subject is None else str(subject),
            "data": encode({k: v for k, v in data.items() if k not in _FLASK_LOGIN}),
        }
        if subject is not None and self._claims is not None:
            body["claims"] = dict(self._claims(data))
        if data.get("_permanent"):
            lifetime = int(old.app.permanent_session_lifetime.total_seconds())
            body |= {"idle_timeout": lifetime, "lifetime": lifetime}

        def retire(response: Response) -> None:
            if name != old.app.session_interface.get_cookie_name(old.app):
                response.delete_cookie(
                    name,
                    path=old.app.session_interface.get_cookie_path(old.app),
                    domain=old.app.session_interface.get_cookie_domain(old.app),
                )
            done()

        old.state.take_over(body, retire)


#: What Flask-Login kept in the session, which the authority knows by itself now.
_FLASK_LOGIN = ("_user_id", "_id", "_fresh", "_remember", "_remember_seconds")


class SignedCookie(_OldCookie):
    """Flask's own sessions, in a signed cookie.

    A signed cookie can't be deleted at its holder: its digest is kept at the authority for as
    long as it would have lasted, so that a copy of it opens nothing.
    """

    def __init__(
        self,
        subject: Subject = user_id,
        claims: Claims | None = None,
        *,
        cookie_name: str | None = None,
    ) -> None:
        super().__init__(subject, claims, cookie_name)

    def adopt_cookie(self, old: OldRequest) -> bool:
        """Takes the cookie's session over."""
        name, value = self._cookie(old)
        serializer = SecureCookieSessionInterface().get_signing_serializer(old.app)
        if value is None or serializer is None:
            return False
        max_age = int(old.app.permanent_session_lifetime.total_seconds())
        try:
            data, at = serializer.loads(value, max_age=max_age, return_timestamp=True)
        except BadSignature:
            return False
        if not data:
            return False
        left = max_age - (time.time() - at.timestamp())

        def take() -> None:
            if _is_retired(old.authority, value, left):
                raise _errors.session_ended("replaced")
            self._open(old, name, data, lambda: None)

        old.state.judge(take)
        return True


class FlaskSessionRedis(_OldCookie):
    """Flask-Session's sessions on Redis, as its releases from 0.6 on write them.

    ``client`` is the ``redis.Redis`` that Flask-Session had. What older releases have pickled is
    not read: whoever can write to that Redis could run code here.
    """

    def __init__(
        self,
        client: Any,
        subject: Subject = user_id,
        claims: Claims | None = None,
        *,
        prefix: str = "session:",
        use_signer: bool = False,
        cookie_name: str | None = None,
        decode: Callable[[bytes], Any] | None = None,
    ) -> None:
        super().__init__(subject, claims, cookie_name)
        self._client = client
        self._prefix = prefix
        self._use_signer = use_signer
        self._decode = decode or _decode

    def adopt_cookie(self, old: OldRequest) -> bool:
        """Takes the session that the cookie names over."""
        name, value = self._cookie(old)
        sid = None if value is None else self._sid(old, value)
        if sid is None:
            return False
        key = self._prefix + sid
        try:
            raw = self._client.get(key)
        except Exception:
            # Whatever the client raises: nobody knows whose the cookie is.
            old.state.fault = _errors.Unavailable("the old session store can't be reached")
            return True
        data = None if raw is None else self._decode(raw)
        # Flask-Session writes down whether it is permanent, also where there is nothing else.
        if not isinstance(data, dict) or set(data) <= {"_permanent"}:
            return False

        def done() -> None:
            left = self._client.ttl(key)
            if left < 0 or left > GRACE:
                self._client.expire(key, int(GRACE))

        old.state.judge(lambda: self._open(old, name, data, done))
        return True

    def _sid(self, old: OldRequest, value: str) -> str | None:
        if not self._use_signer:
            return value
        try:
            signer = Signer(old.app.secret_key or "", salt="flask-session", key_derivation="hmac")
            return signer.unsign(value).decode()
        except BadSignature:
            return None


class HmacTokens:
    """Tokens that the application has signed itself, with PyJWT and a shared secret.

    An access token goes on as another name of a session that its first use opens: the session is
    listed, and once it is ended the token is worth nothing. A refresh token is exchanged for
    tokens of the authority, once.
    """

    def __init__(
        self,
        secret: str | bytes,
        *,
        algorithms: Collection[str] = ("HS256",),
        subject: Subject = lambda claims: claims.get("sub", claims.get("user_id")),
        claims: Collection[str] = ("email", "role"),
        type_claim: str = "type",
        access_type: str = "access",
        refresh_type: str = "refresh",
        audience: str | None = None,
        issuer: str | None = None,
    ) -> None:
        if not all(name.startswith("HS") for name in algorithms):
            raise ValueError("the algorithms of a shared secret are HS256, HS384 and HS512")
        self._secret = secret
        self._algorithms = list(algorithms)
        self._subject = subject
        self._claims = tuple(claims)
        self._type_claim = type_claim
        self._access_type = access_type
        self._refresh_type = refresh_type
        self._audience = audience
        self._issuer = issuer

    def adopt_cookie(self, old: OldRequest) -> bool:
        """A cookie is none of these."""
        return False

    def adopt_bearer(self, old: OldRequest, token: str) -> bool:
        """Judges the token by its signature, its time and its session."""
        old.state.by_bearer = True
        recognised = True

        def take() -> None:
            nonlocal recognised
            claims = self._verified(token)
            if claims is None:
                recognised = False
                return
            if self._kind(claims) != self._access_type:
                raise _errors.token_wrong_type()
            self._adopt(old, token, claims)

        old.state.judge(take)
        return recognised

    def refresh(self, authority: Authority, token: str) -> dict[str, Any] | None:
        """New tokens for an old refresh token, which is retired."""
        claims = self._verified(token)
        if claims is None:
            return None
        if self._kind(claims) != self._refresh_type:
            raise _errors.token_wrong_type()
        if _is_retired(authority, token, claims["exp"] - time.time()):
            raise _errors.Refused("refresh_token_reused", 401, "the refresh token was used before")
        body = {
            "subject": self._subject_of(claims),
            "claims": self._own(claims),
            "delivery": "bearer",
        }
        return {**authority.open(body)}

    def _adopt(self, old: OldRequest, token: str, claims: dict[str, Any]) -> None:
        subject = self._subject_of(claims)
        left = max(1, int(claims["exp"] - time.time()))
        body = {"subject": subject, "data": {}, "idle_timeout": left, "lifetime": left}
        view = old.authority.alias(_handle(token), body).view
        old.state.adopt(
            Auth(
                sid=view["id"],
                subject=subject,
                claims={**view["claims"], **self._own(claims)},
                auth_time=float(claims.get("iat", 0)),
                amr=[],
                acr="aal1",
                via="bearer",
                token_claims=claims,
            )
        )

    def _verified(self, token: str) -> dict[str, Any] | None:
        """The claims; ``None``: it isn't ours. Raises where it is and its time is over."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["exp"], "verify_sub": False},
            )
        except jwt.ExpiredSignatureError as fault:
            raise _errors.token_expired() from fault
        except jwt.PyJWTError:
            return None
        return claims

    def _kind(self, claims: Mapping[str, Any]) -> Any:
        # Whoever had one kind only didn't name it.
        return claims.get(self._type_claim, self._access_type)

    def _subject_of(self, claims: Mapping[str, Any]) -> str:
        subject = self._subject(claims)
        if subject is None:
            raise _errors.token_invalid()
        return str(subject)

    def _own(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        return {name: claims[name] for name in self._claims if name in claims}


def _is_retired(authority: Authority, credential: str, left: float) -> bool:
    since = authority.retired_at(_handle(credential), max(left, 0.0) + GRACE)
    return since is not None and time.time() - since > GRACE


def _handle(credential: str) -> str:
    digest = hashlib.sha256(credential.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _decode(raw: bytes) -> Any:
    # Flask-Session brings it along; whoever has used that has it.
    import msgspec  # noqa: PLC0415

    try:
        return msgspec.msgpack.decode(raw)
    except msgspec.DecodeError:
        try:
            return json.loads(raw)
        except ValueError:
            return None
