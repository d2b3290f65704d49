"""Who may call a view."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar, overload

from flask import current_app

from . import _errors
from ._config import Duration, seconds
from ._errors import Refused
from ._extension import GUARDED, current_state, installed
from ._state import Auth

F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[[Auth], None]

_CLOCK_LEEWAY = 5.0


def guard(view: F, check: Check) -> F:
    """``view``, for requests whose user passes ``check``."""

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        admit(check)
        return current_app.ensure_sync(view)(*args, **kwargs)

    setattr(guarded, GUARDED, True)
    return guarded  # type: ignore[return-value]


def admit(check: Check) -> Auth:
    """Lets the current request pass, or raises the application's answer."""
    extension = installed().extension
    _, state = current_state()
    try:
        auth = state.require()
        if extension.user_of(state) is None:
            # The application knows no such user any more.
            raise _errors.credentials_required()
        check(auth)
    except Refused as refusal:
        raise extension.deny(refusal) from None
    return auth


def login_required(view: F) -> F:
    """For signed-in users, by cookie or bearer token: everybody else gets a 401."""
    return guard(view, lambda _auth: None)


@overload
def fresh_login_required(view: F) -> F: ...
@overload
def fresh_login_required(*, max_age: Duration) -> Callable[[F], F]: ...
def fresh_login_required(
    view: F | None = None, *, max_age: Duration | None = None
) -> F | Callable[[F], F]:
    """For users who signed in lately: within ``max_age``, else ``CLOAKROOM_FRESH_FOR``."""

    def check(auth: Auth) -> None:
        if not is_fresh(auth, max_age):
            raise _errors.reauthentication_required()

    if view is not None:
        return guard(view, check)
    return lambda view: guard(view, check)


def claims_required(*names: str, **claims: Any) -> Callable[[F], F]:
    """For sessions that have these claims: ``claims_required("email", role="admin")``.

    Values are compared exactly; a claim that is a list contains the value or doesn't. With a
    list, tuple or set of values, one of them is enough.
    """

    def check(auth: Auth) -> None:
        if not has_claims(auth.claims, names, claims):
            raise _errors.insufficient_claims()

    return lambda view: guard(view, check)


def login_fresh() -> bool:
    """Whether the user signed in lately enough for :func:`fresh_login_required`."""
    _, state = current_state()
    return state.auth is not None and is_fresh(state.auth, None)


def is_fresh(auth: Auth, max_age: Duration | None) -> bool:
    """Whether the user proved who they are within ``max_age``."""
    limit = installed().settings.fresh_for if max_age is None else seconds(max_age)
    age = time.time() - auth.auth_time
    return -_CLOCK_LEEWAY <= age <= limit


def has_claims(held: dict[str, Any], names: Collection[str], wanted: dict[str, Any]) -> bool:
    """Whether all of them are there."""
    return all(name in held for name in names) and all(
        name in held and _matches(held[name], value) for name, value in wanted.items()
    )


def _matches(held: Any, wanted: Any) -> bool:
    if isinstance(wanted, list | tuple | set | frozenset):
        return any(_matches(held, one) for one in wanted)
    if isinstance(held, list):
        return any(_is_same(one, wanted) for one in held)
    return _is_same(held, wanted)


def _is_same(held: Any, wanted: Any) -> bool:
    # True is not 1 here.
    return type(held) is type(wanted) and bool(held == wanted)
