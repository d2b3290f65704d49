"""``current_user`` and ``current_session``."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

from flask import has_request_context
from werkzeug.local import LocalProxy

if TYPE_CHECKING:
    from ._state import Auth


class UserMixin:
    """What Flask-Login's users have; for user classes of your own."""

    is_authenticated = True
    is_active = True
    is_anonymous = False

    def get_id(self) -> str:
        """The user's id as text."""
        return str(self.id)  # type: ignore[attr-defined]


class AnonymousUserMixin:
    """Nobody."""

    id = None
    claims: dict[str, Any] = {}  # noqa: RUF012
    is_authenticated = False
    is_active = False
    is_anonymous = True

    def get_id(self) -> None:
        """There is none."""
        return


class CurrentUser(UserMixin):
    """The user of an application without a ``user_loader``: an id, and the session's claims."""

    def __init__(self, auth: Auth) -> None:
        #: The name that the sign-in gave.
        self.id = auth.subject
        #: What the sign-in said about them.
        self.claims = auth.claims

    def __repr__(self) -> str:
        return f"<user {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CurrentUser) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


class CurrentSession:
    """The session of the current request, whoever it belongs to."""

    def __init__(self, auth: Auth | None, sid: str | None) -> None:
        #: The session's id: no secret, grants nothing. ``None``: there is no session.
        self.id = sid
        #: Whose it is; ``None`` before a sign-in.
        self.subject = None if auth is None else auth.subject
        self.claims = {} if auth is None else auth.claims
        self.amr = [] if auth is None else auth.amr
        self.acr = "aal0" if auth is None else auth.acr
        #: Who acts as the subject, where somebody does: an impersonation.
        self.actor = None if auth is None else auth.actor
        #: ``"cookie"`` or ``"bearer"``.
        self.via = None if auth is None else auth.via
        #: When the user last proved who they are.
        self.auth_time = (
            None if auth is None else datetime.fromtimestamp(auth.auth_time, timezone.utc)
        )


_ANONYMOUS = AnonymousUserMixin()


def _user() -> Any:
    from ._extension import current_state, installed  # noqa: PLC0415

    if not has_request_context():
        return _ANONYMOUS
    _, state = current_state()
    user = installed().extension.user_of(state)
    return _ANONYMOUS if user is None else user


def _session() -> CurrentSession:
    from ._extension import current_state  # noqa: PLC0415

    _, state = current_state()
    return CurrentSession(state.auth, state.sid)


#: Who is signed in: what ``user_loader`` returns, else a user with ``id`` and ``claims``.
current_user: Any = LocalProxy(_user)
#: The session's ``id``, ``subject``, ``claims``, ``auth_time``, ``amr``, ``acr``, ``actor``.
current_session = cast(CurrentSession, LocalProxy(_session))
