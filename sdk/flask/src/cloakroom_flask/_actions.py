"""Signing in and out, and tokens for programs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from . import _errors
from ._config import Duration, seconds
from ._errors import CloakroomError, token_wrong_type
from ._extension import current_state, installed
from ._tokens import AccessClaims

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{16,128}")


def login_user(
    user: Any,
    remember: bool = False,
    duration: Duration | None = None,
    *,
    claims: Mapping[str, Any] | None = None,
    amr: list[str] | None = None,
    acr: str | None = None,
    epoch: int | None = None,
    actor: str | None = None,
    label: str | None = None,
) -> bool:
    """Signs a user in whom you have checked: an object with ``get_id()`` or ``id``, or the id.

    The answer carries a new session cookie, the session before ends, and what it remembered
    stays. ``remember`` keeps the user signed in for ``duration`` (else
    ``CLOAKROOM_REMEMBER_FOR``), also when the browser is closed.
    """
    session, state = current_state()
    grant = _grant(user, claims, amr=amr, acr=acr, epoch=epoch, actor=actor, label=label)
    remember_for = None
    if remember:
        remember_for = installed().settings.remember_for if duration is None else seconds(duration)
    state.sign_in(session, grant, remember_for)
    if not isinstance(user, str | int):
        state.user = user
    return True


def epoch_of(user: Any) -> int:
    """A user's epoch, for ``login_user`` and ``generate_tokens``.

    Read before the password is checked, it lets a "sign out everywhere" in between win. The API
    key needs the scope ``users:read`` for it.
    """
    return installed().authority.epoch_of(_subject_of(user))


def logout_user() -> bool:
    """Ends the session, with its data and its tokens. Writes after this begin a new one."""
    session, state = current_state()
    state.sign_out(session)
    return True


def logout_everywhere() -> int:
    """Ends every session of the user, this one too. Returns how many."""
    session, state = current_state()
    return state.sign_out_everywhere(session)


def confirm_login(amr: list[str] | None = None, acr: str | None = None) -> None:
    """The user has proved again who they are: makes the sign-in fresh, with a new cookie."""
    session, state = current_state()
    auth = state.require()
    if auth.via == "bearer":
        raise token_wrong_type()
    user = state.user
    # Whoever acts as the user goes on doing so: that isn't lost by a confirmation.
    proof = {"amr": amr or auth.amr, "acr": acr or auth.acr, "actor": auth.actor}
    grant = _grant(auth.subject, auth.claims, **proof)
    remember_for = state.lifetime if session.permanent else None
    state.sign_in(session, grant, remember_for, continues=True)
    state.user = user


def generate_tokens(
    user: Any,
    claims: Mapping[str, Any] | None = None,
    *,
    amr: list[str] | None = None,
    acr: str | None = None,
    epoch: int | None = None,
    actor: str | None = None,
    lifetime: Duration | None = None,
    label: str | None = None,
) -> dict[str, Any]:
    """Opens a session for a program, beside the request's own.

    Returns ``access_token``, ``refresh_token``, ``expires_in``, ``refresh_expires_in`` and
    ``token_type``.
    """
    _, state = current_state()
    grant = _grant(user, claims, amr=amr, acr=acr, epoch=epoch, actor=actor, label=label)
    if lifetime is not None:
        grant["lifetime"] = int(seconds(lifetime))
    opened: Mapping[str, Any] = state.issue({**grant, "delivery": "bearer"})
    return _tokens(opened)


def verify_token(token: str) -> AccessClaims:
    """The claims of a valid access token of a live session; else its refusal is raised."""
    if token.startswith("ck"):
        raise token_wrong_type()
    return installed().authority.access(token)


def refresh_access_token(
    refresh_token: str | None, *, idempotency_key: str | None = None
) -> dict[str, Any]:
    """New tokens for a refresh token; claims are read afresh. Refusals are raised.

    With an ``idempotency_key`` (16 to 128 visible characters) a lost answer may be asked for
    again.
    """
    if not refresh_token:
        raise _errors.refresh_token_required()
    if idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        raise CloakroomError("malformed_request", 400, "the Idempotency-Key is malformed")
    found = installed()
    for legacy in found.extension.legacy:
        tokens = legacy.refresh(found.authority, refresh_token)
        if tokens is not None:
            return _tokens(tokens)
    return _tokens(found.authority.refresh(refresh_token, idempotency_key))


def _grant(user: Any, claims: Mapping[str, Any] | None, **rest: Any) -> dict[str, Any]:
    grant: dict[str, Any] = {"subject": _subject_of(user)}
    if claims is not None:
        grant["claims"] = dict(claims)
    grant.update({name: value for name, value in rest.items() if value is not None})
    return grant


def _subject_of(user: Any) -> str:
    if isinstance(user, str | int):
        return str(user)
    found = user.get_id() if hasattr(user, "get_id") else user.id
    if found is None:
        raise ValueError("the user has no id")
    return str(found)


_MEMBERS = ("access_token", "refresh_token", "expires_in", "refresh_expires_in", "token_type")


def _tokens(opened: Mapping[str, Any]) -> dict[str, Any]:
    return {name: opened[name] for name in _MEMBERS if name in opened}
