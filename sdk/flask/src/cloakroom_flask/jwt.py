"""Bearer tokens by the names of Flask-JWT-Extended.

A route that has ``@jwt_required()`` takes ``Authorization: Bearer`` and nothing else. Every bad
token is a 401.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import jwt as pyjwt
from flask import current_app, g, request

from . import _errors
from ._actions import generate_tokens, refresh_access_token, verify_token
from ._config import Duration
from ._errors import Refused
from ._extension import GUARDED, current_state, installed
from ._guards import is_fresh
from ._tokens import own_claims
from ._users import current_user

F = TypeVar("F", bound=Callable[..., Any])

_KEY = "_cloakroom_jwt"


def jwt_required(
    optional: bool = False,
    fresh: bool | Duration = False,
    refresh: bool = False,
    locations: str | Sequence[str] | None = None,
) -> Callable[[F], F]:
    """For requests with a valid access token.

    ``optional`` lets requests without any token pass; ``fresh`` demands a sign-in within
    ``CLOAKROOM_FRESH_FOR``, or within the duration given. ``refresh`` is refused: a refresh token
    is exchanged by :func:`refresh_access_token`.
    """
    _only_access_tokens(refresh)
    _only_headers(locations)

    def decorate(view: F) -> F:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            verify_jwt_in_request(optional=optional, fresh=fresh)
            return current_app.ensure_sync(view)(*args, **kwargs)

        setattr(guarded, GUARDED, True)
        return guarded  # type: ignore[return-value]

    return decorate


def verify_jwt_in_request(
    optional: bool = False,
    fresh: bool | Duration = False,
    refresh: bool = False,
    locations: str | Sequence[str] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Verifies the token of the request; its header and claims, or ``None`` without one."""
    _only_access_tokens(refresh)
    _only_headers(locations)
    try:
        claims = _access_claims(fresh)
    except Refused as refusal:
        if optional and refusal.error_code == "credentials_required":
            setattr(g, _KEY, {})
            return None
        raise installed().extension.deny(refusal) from None
    setattr(g, _KEY, claims)
    return get_jwt_header(), claims


def get_jwt() -> dict[str, Any]:
    """The claims of the request's token; empty where it is optional and absent."""
    found: dict[str, Any] | None = g.get(_KEY)
    if found is None:
        raise RuntimeError("call jwt_required() or verify_jwt_in_request() before get_jwt()")
    return found


def get_jwt_identity() -> str | None:
    """Whose token it is; ``None`` where it is optional and absent."""
    identity: str | None = get_jwt().get("sub")
    return identity


def get_jwt_header() -> dict[str, Any]:
    """The header of the request's access token."""
    token = _token() or ""
    return dict(pyjwt.get_unverified_header(token)) if token.count(".") == 2 else {}


def get_current_user() -> Any:
    """The same as ``current_user``."""
    return current_user


def _access_claims(fresh: bool | Duration) -> dict[str, Any]:
    _, state = current_state()
    auth = state.auth
    if not state.by_bearer:
        raise _errors.credentials_required()
    if auth is None or auth.token_claims is None:
        raise state.refusal or _errors.credentials_required()
    if installed().extension.user_of(state) is None:
        raise _errors.credentials_required()
    if fresh is not False and not is_fresh(auth, None if fresh is True else fresh):
        raise _errors.reauthentication_required()
    return auth.token_claims


def _token() -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else None


def _only_access_tokens(refresh: bool) -> None:
    if refresh:
        raise ValueError(
            "a refresh token opens no view: exchange it with refresh_access_token(token), which "
            "rotates it and notices one that was stolen; a view that only looked at it would do "
            "neither"
        )


def _only_headers(locations: str | Sequence[str] | None) -> None:
    if locations not in (None, "headers", ["headers"], ("headers",)):
        raise ValueError(
            "tokens are taken from the Authorization header only: in URLs, bodies and cookies "
            "they leak or need a CSRF check; for cookies use login_required"
        )


__all__ = [
    "current_user",
    "generate_tokens",
    "get_current_user",
    "get_jwt",
    "get_jwt_header",
    "get_jwt_identity",
    "jwt_required",
    "own_claims",
    "refresh_access_token",
    "verify_jwt_in_request",
    "verify_token",
]
