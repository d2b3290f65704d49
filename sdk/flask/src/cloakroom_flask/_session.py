"""``flask.session``: read when it is first used, saved when it was changed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import Flask, Request, Response, has_request_context, request
from flask.sessions import SessionInterface, SessionMixin

from . import _data
from ._errors import CloakroomError, Refused, Unavailable

if TYPE_CHECKING:
    from ._extension import Installed
    from ._state import RequestState

F = TypeVar("F", bound=Callable[..., Any])

#: The marker that keeps an anonymous session which a form's CSRF token belongs to.
CSRF_MARK = "_csrf"
_DEFAULT_NAME = "session"
_READERS = (
    "__getitem__ __contains__ __iter__ __len__ __eq__ __ne__ __repr__ __or__ __ror__ "
    "__reversed__ get keys values items copy"
).split()
_WRITERS = "__setitem__ __delitem__ __ior__ pop popitem update setdefault".split()


class CloakroomSession(dict[str, Any], SessionMixin):
    """A dictionary, as ``flask.session`` always was.

    Changes inside of a value aren't noticed: set :attr:`modified` then, as everywhere in Flask.
    """

    modified = False
    accessed = False

    def __init__(self, state: RequestState) -> None:
        super().__init__()
        self.state = state
        self.is_loaded = False
        self._etag = '"0"'
        self._before: _data.Wire = {}

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether the request came without a live session."""
        return self.state.is_new

    @property
    def sid(self) -> str | None:
        """The session's id: no secret, grants nothing. ``None`` until it is opened."""
        return self.state.sid

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser, for ``PERMANENT_SESSION_LIFETIME``."""
        if not self.is_loaded and self.state.permanent is not None:
            return self.state.permanent
        return bool(self.get("_permanent", False))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self.state.permanent_said = bool(value)
        self["_permanent"] = bool(value)

    def load(self) -> None:
        """Reads the data, where that hasn't happened yet."""
        if self.is_loaded:
            return
        found = self.state.read_data()
        self._before, self._etag = found["data"], found["etag"]
        dict.update(self, _data.decode(self._before))
        self.is_loaded = True

    def changes(self) -> _data.Changes:
        """What the request has changed. Reads nothing."""
        after = self.wire() if self.modified and self.is_loaded else self._before
        return _data.Changes(self._before, after)

    def wire(self) -> _data.Wire:
        """The data as JSON."""
        return _data.encode(dict(dict.items(self)))

    def saved(self) -> None:
        """What is here is what the authority has."""
        self._before = self.wire()
        self._etag = ""

    def known(self) -> dict[str, Any] | None:
        """The data as it was read, with its version, while nothing of ours has changed it."""
        return {"data": self._before, "etag": self._etag} if self._etag else None

    def hold(self, data: dict[str, Any]) -> None:
        """Holds this and nothing else, as the authority has it."""
        dict.clear(self)
        dict.update(self, data)
        self.is_loaded = True
        self.saved()

    def empty(self) -> None:
        """Holds nothing, and knows that the authority has nothing either."""
        dict.clear(self)
        self._before, self._etag = {}, '"0"'
        self.is_loaded, self.modified = True, False

    def clear(self) -> None:
        """Empties the session. Who was signed in by it is signed out, as always in Flask."""
        self.load()
        self.accessed = self.modified = True
        dict.clear(self)
        self.state.forget_user()

    def __bool__(self) -> bool:
        return len(self) > 0


def _lazy(name: str, *, writes: bool) -> Callable[..., Any]:
    plain = getattr(dict, name)

    @functools.wraps(plain)
    def method(self: CloakroomSession, *args: Any, **kwargs: Any) -> Any:
        self.load()
        self.accessed = True
        if writes:
            self.modified = True
        return plain(self, *args, **kwargs)

    return method


for _name in _READERS:
    setattr(CloakroomSession, _name, _lazy(_name, writes=False))
for _name in _WRITERS:
    setattr(CloakroomSession, _name, _lazy(_name, writes=True))


class CloakroomSessionInterface(SessionInterface):
    """Keeps sessions at the authority; the cookie holds a credential and no data."""

    pickle_based = False
    session_class = CloakroomSession

    def __init__(self, installed: Installed) -> None:
        self._installed = installed

    def get_cookie_name(self, app: Flask) -> str:
        """``SESSION_COOKIE_NAME``; over HTTPS its default gets the prefix that browsers guard."""
        name = super().get_cookie_name(app)
        if name != _DEFAULT_NAME or not self.get_cookie_secure(app):
            return name
        bare = self.get_cookie_domain(app) is None and self.get_cookie_path(app) == "/"
        return f"__Host-{name}" if bare else f"__Secure-{name}"

    def get_cookie_secure(self, app: Flask) -> bool:
        """``SESSION_COOKIE_SECURE``, and always over HTTPS."""
        secure = has_request_context() and request.is_secure
        return super().get_cookie_secure(app) or secure

    def get_cookie_samesite(self, app: Flask) -> str | None:
        """``SESSION_COOKIE_SAMESITE``; where nothing is said, ``Lax``."""
        return super().get_cookie_samesite(app) or "Lax"

    def get_cookie_partitioned(self, app: Flask) -> bool:
        """``SESSION_COOKIE_PARTITIONED``, which Flask 3.1 brought."""
        return bool(app.config.get("SESSION_COOKIE_PARTITIONED"))

    def get_expiration_time(self, app: Flask, session: SessionMixin) -> datetime | None:
        """When the browser drops the cookie: never later than the session's own end."""
        if not session.permanent:
            return None
        state = cast(CloakroomSession, session).state
        lifetime = state.remember_for or app.permanent_session_lifetime.total_seconds()
        at = datetime.now(timezone.utc) + timedelta(seconds=lifetime)
        return at if state.ends_at is None else min(at, state.ends_at)

    def open_session(self, app: Flask, request: Request) -> CloakroomSession:
        """The session of the request. Nothing is read of it before it is used."""
        state = self._installed.identify(app, self, request)
        session = self.session_class(state)
        state.session = session
        return session

    def regenerate(self, session: SessionMixin) -> None:
        """Moves a visitor's session into a new one with a new cookie, as in Flask-Session.

        For an application that keeps its user in the session by a name of its own: the cookie
        from before that may have been planted. ``login_user`` does it by itself.
        """
        if isinstance(session, CloakroomSession):
            session.load()
            session.accessed = session.modified = True
            session.state.move_on()

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Saves what was changed, and sets or deletes the cookie as Flask's own does."""
        if not isinstance(session, CloakroomSession):
            return
        # What happens from here on is no access by the application.
        accessed = session.accessed
        try:
            self._save(app, session, response)
        except Refused as refusal:
            if refusal.status != 401:
                self._fail(response, refusal, session)
            else:
                # Somebody signed out while this request ran: what it wanted to keep goes with
                # the session. The browser may have another by now, so its cookie stays.
                self._installed.late_saves += 1
        except CloakroomError as fault:
            self._fail(response, fault, session)
        if accessed:
            response.vary.add("Cookie")

    def _save(self, app: Flask, session: CloakroomSession, response: Response) -> None:
        state = session.state
        if session.modified and session.is_loaded:
            state.save(session)
        if state.drops_cookie and state.token is None:
            self._delete_cookie(app, response)
        elif state.token is not None and self._wants_cookie(app, session):
            self._set_cookie(app, session, response, state.token)
        for retire in state.retiring:
            retire(response)

    def _wants_cookie(self, app: Flask, session: CloakroomSession) -> bool:
        state = session.state
        if state.token_is_new:
            return True
        if state.permanent is None and not session.is_loaded:
            self._learn_permanent(app, session)
        # An old cookie again could undo a sign-out or sign-in that happened meanwhile.
        return self.should_set_cookie(app, session) and not state.is_over

    def _learn_permanent(self, app: Flask, session: CloakroomSession) -> None:
        # Known from then on, so this is one reading for each session and process.
        if app.config["SESSION_REFRESH_EACH_REQUEST"]:
            try:
                session.load()
            except Unavailable:
                return

    def _set_cookie(
        self, app: Flask, session: CloakroomSession, response: Response, token: str
    ) -> None:
        response.set_cookie(
            self.get_cookie_name(app),
            token,
            expires=self.get_expiration_time(app, session),
            httponly=self.get_cookie_httponly(app),
            **self._attributes(app),
        )
        self._partition(app, response)
        response.vary.add("Cookie")

    def _delete_cookie(self, app: Flask, response: Response) -> None:
        response.delete_cookie(
            self.get_cookie_name(app),
            httponly=self.get_cookie_httponly(app),
            **self._attributes(app),
        )
        self._partition(app, response)
        response.vary.add("Cookie")

    def _attributes(self, app: Flask) -> dict[str, Any]:
        return {
            "domain": self.get_cookie_domain(app),
            "path": self.get_cookie_path(app),
            "secure": self.get_cookie_secure(app),
            "samesite": self.get_cookie_samesite(app),
        }

    def _partition(self, app: Flask, response: Response) -> None:
        # Releases of werkzeug before 3.1 don't know the attribute, so it is written down here.
        if self.get_cookie_partitioned(app):
            *others, ours = response.headers.getlist("Set-Cookie")
            response.headers.setlist("Set-Cookie", [*others, f"{ours}; Partitioned"])

    def _fail(self, response: Response, fault: CloakroomError, session: CloakroomSession) -> None:
        """The handler's answer said "done", and it isn't."""
        if not isinstance(fault, Unavailable):
            # Such as too much data: a mistake of the application, and none of its user's.
            where = "" if fault.member is None else f" (the largest key is {fault.member!r})"
            self._installed.logger.error("cloakroom: a session was not saved: %s%s", fault, where)
            fault = CloakroomError("internal", 500, "the session could not be saved")
        response.set_data(fault.get_body())
        response.status_code = fault.status
        for name in ("Location", "ETag", "Last-Modified", "Content-Encoding"):
            response.headers.pop(name, None)
        for name, value in fault.get_headers():
            response.headers[name] = value


def session_in(context: Any) -> SessionMixin:
    """The session of a request context; looking at it here is no access by the application."""
    # Flask 3.1.3 counts every look at the context's `session` as one.
    found = getattr(context, "_session", None)
    return cast(SessionMixin, found if found is not None else context.session)
