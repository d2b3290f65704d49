"""The extension: what one application has of Cloakroom."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, unquote

from flask import Flask, Request, Response, request, url_for
from flask.globals import request_ctx
from werkzeug.wrappers import Response as AnyResponse

from . import _config, _csrf, _errors
from ._authority import Authority, RemoteAuthority
from ._cli import cloakroom as commands
from ._errors import CloakroomError, Refused
from ._session import CloakroomSession, CloakroomSessionInterface, session_in
from ._state import RequestState
from ._users import CurrentUser, current_session, current_user

F = TypeVar("F", bound=Callable[..., Any])

_BEARER = re.compile(r"bearer(?: (.*))?", re.IGNORECASE | re.DOTALL)
#: Dots that a browser takes out, which leaves two slashes.
_DOTS = re.compile(r"^[^?#]*/\.{1,2}//")
#: Set on views by decorators.
EXEMPT = "_cloakroom_csrf_exempt"
GUARDED = "_cloakroom_guarded"


@dataclass(frozen=True)
class OldRequest:
    """A request that may carry a credential of before."""

    app: Flask
    request: Request
    state: RequestState
    authority: Authority


class Legacy(Protocol):
    """Recognises credentials of before; those of :mod:`cloakroom_flask.migrate`, or your own."""

    def adopt_cookie(self, old: OldRequest) -> bool:
        """Takes an old cookie over; whether there was one."""

    def adopt_bearer(self, old: OldRequest, token: str) -> bool:
        """Judges an old bearer token; whether it was one."""

    def refresh(self, authority: Authority, token: str) -> dict[str, Any] | None:
        """The tokens for an old refresh token; ``None``: it is no old one."""


class Cloakroom:
    """Sessions, sign-in and bearer tokens for Flask.

    ``Cloakroom(app)``, or ``init_app(app)`` later; settings are ``CLOAKROOM_*`` in
    ``app.config``.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        login_view: str | None = None,
        legacy: Sequence[Legacy] = (),
    ) -> None:
        #: Endpoint or URL of the sign-in page; without one, everybody gets a 401 as JSON.
        self.login_view = login_view
        #: The same for single blueprints, by their names.
        self.blueprint_login_views: dict[str, str | None] = {}
        #: Readers of credentials of before.
        self.legacy = tuple(legacy)
        self._load_user: Callable[[str], Any] | None = None
        self._on_unauthorized: Callable[..., Any] | None = None
        self._on_forbidden: Callable[..., Any] | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Gives ``app`` its sessions. Raises :class:`ConfigurationError` for what can't work."""
        settings = _config.read(app)
        authority = _authority_of(settings, app)
        installed = Installed(self, settings, authority)
        if isinstance(authority, RemoteAuthority) and settings.check_at_start:
            authority.check()
        app.extensions["cloakroom"] = installed
        if self.login_view is None:
            self.login_view = app.config["CLOAKROOM_LOGIN_VIEW"]
        app.session_interface = CloakroomSessionInterface(installed)
        app.before_request(installed.check_csrf)
        app.context_processor(lambda: {"current_user": current_user})
        app.cli.add_command(commands)
        app.jinja_env.globals["csrf_token"] = csrf_token
        app.jinja_env.globals["current_session"] = current_session

    def user_loader(self, load: F) -> F:
        """Says how a user is looked up by its id; ``current_user`` is what it returns.

        Without one, ``current_user`` has ``id`` and ``claims``.
        """
        self._load_user = load
        return load

    def unauthorized_handler(self, handle: F) -> F:
        """Answers a 401 in place of redirect or JSON. It may take the refusal."""
        self._on_unauthorized = handle
        return handle

    def forbidden_handler(self, handle: F) -> F:
        """Answers a 403 in place of JSON. It may take the refusal."""
        self._on_forbidden = handle
        return handle

    def user_of(self, state: RequestState) -> Any:
        """The user behind a request, or ``None``."""
        auth = state.auth
        if auth is None:
            return None
        if state.user is None:
            load = self._load_user
            state.user = CurrentUser(auth) if load is None else load(auth.subject)
        return state.user

    def deny(self, refusal: Refused) -> Refused:
        """The refusal with the answer that this application gives to it."""
        handler = self._on_forbidden if refusal.status == 403 else self._on_unauthorized
        if handler is not None:
            answer = _call(handler, refusal)
        elif refusal.status == 401 and (page := self._sign_in_page()) is not None:
            answer = Response(status=302, headers={"Location": page})
            answer.vary.add("Accept")
            answer.headers["Cache-Control"] = "no-store"
        else:
            return refusal
        refusal.response = _response(answer, refusal)
        return refusal

    def _sign_in_page(self) -> str | None:
        """Where a browser is sent that isn't signed in."""
        view = self.login_view
        if request.blueprint is not None:
            view = self.blueprint_login_views.get(request.blueprint, view)
        if view is None or request.method not in ("GET", "HEAD") or not _wants_page(request):
            return None
        url = view if "/" in view or ":" in view else url_for(view)
        path = request.full_path if request.query_string else request.path
        joint = "&" if "?" in url else "?"
        name = installed().settings.return_param
        return f"{url}{joint}{name}={quote(request.script_root + path, safe='')}"


class Installed:
    """The extension in one application."""

    def __init__(
        self, extension: Cloakroom, settings: _config.Settings, authority: Authority
    ) -> None:
        self.extension = extension
        self.settings = settings
        self.authority = authority
        #: Saves that came after the end of their session, and were dropped.
        self.late_saves = 0
        self.logger = _logger()

    def identify(
        self, app: Flask, interface: CloakroomSessionInterface, request: Request
    ) -> RequestState:
        """Finds out whose request it is."""
        self.authority.prepare()
        permanent_for = app.permanent_session_lifetime.total_seconds()
        state = RequestState(self.authority, request, permanent_for)
        old = OldRequest(app, request, state, self.authority)
        legacy = self.extension.legacy
        bearer = _BEARER.fullmatch(request.headers.get("Authorization", ""))
        if bearer is not None:
            token = bearer[1] or ""
            if not any(one.adopt_bearer(old, token) for one in legacy):
                state.by_token(token)
            return state
        cookie = cookie_of(request, interface.get_cookie_name(app))
        if cookie is not None and cookie.startswith("cks_"):
            state.by_cookie(cookie)
        if state.is_new and state.fault is None:
            any(one.adopt_cookie(old) for one in legacy)
        return state

    def check_csrf(self) -> None:
        """Refuses an unsafe request by cookie that another site may have sent."""
        if not self.settings.csrf or _csrf.is_safe(request.method):
            return
        session = session_in(request_ctx)
        if not isinstance(session, CloakroomSession) or session.state.by_bearer:
            return
        if self._is_exempt():
            return
        if session.state.fault is not None:
            raise session.state.fault
        why = self._forgery(session.state)
        if why is not None:
            raise self.extension.deny(_errors.csrf_failed(why))

    def _is_exempt(self) -> bool:
        if request.endpoint is None:
            return True
        app = request_ctx.app
        view = app.view_functions.get(request.endpoint)
        blueprints = (app.blueprints.get(name) for name in request.blueprints)
        return any(getattr(one, EXEMPT, False) for one in (view, *blueprints))

    def _forgery(self, state: RequestState) -> str | None:
        own = self.settings.origin or request.host_url
        view = state.view
        if view is None and not _csrf.is_browsers(request):
            return None
        fault = _csrf.origin_fault(request, own, self.settings.allowed_origins)
        if fault is not None:
            return fault
        if view is not None and state.is_migrated and _csrf.tells_origin(request):
            # Its form was made before there were tokens of this session.
            return None
        if view is not None:
            return _csrf.token_fault(request, view["csrf_key"])
        # Nothing can be done in somebody's name; a guarded view will say so itself.
        guarded = request_ctx.app.view_functions.get(request.endpoint or "")
        if getattr(guarded, GUARDED, False):
            return None
        return "step 4: there is no session that a token could belong to"


def installed() -> Installed:
    """The extension in the current application."""
    found = request_ctx.app.extensions.get("cloakroom")
    if not isinstance(found, Installed):
        raise RuntimeError("no session middleware: add Cloakroom(app) where the app is made")
    return found


def current_state() -> tuple[CloakroomSession, RequestState]:
    """The session of the current request, which counts as accessed, and its state."""
    session = session_in(request_ctx)
    if not isinstance(session, CloakroomSession):
        raise RuntimeError("no session middleware: add Cloakroom(app) where the app is made")
    session.accessed = True
    return session, session.state


def csrf_token() -> str:
    """A CSRF token for a form or the header ``X-CSRF-Token``; in templates too.

    Where there is no session yet, this opens an anonymous one.
    """
    session, state = current_state()
    if state.by_bearer:
        return ""
    return _csrf.make_token(state.open_for_csrf(session))


def csrf_exempt(view: F) -> F:
    """Leaves a view, or all of a blueprint, out of the CSRF check."""
    setattr(view, EXEMPT, True)
    return view


def cookie_of(request: Request, name: str) -> str | None:
    """The cookie of exactly this name; of two there is none, since nobody knows whose it is."""
    header = request.environ.get("HTTP_COOKIE", "")
    # Only blanks after a semicolon are no part of a name: browsers guard `__Host-`, and not what
    # some reader would make it of.
    pairs = [part.lstrip(" \t").partition("=") for part in header.split(";")]
    if any(equals and key.lower() == "$version" for key, equals, _ in pairs):
        # The syntax of RFC 2965, which readers understand differently.
        return None
    found = [value for key, equals, value in pairs if equals and key == name]
    return found[0] if len(found) == 1 and found[0].isascii() else None


def is_local_path(target: str | None) -> bool:
    """Whether a place to return to is a path of this site, and of no other."""
    if not target or not target.startswith("/") or target.startswith("//"):
        return False
    plain = all(char > " " and char not in "\\\x7f" for char in target)
    # Servers in front may decode the path before the browser sees it.
    second = unquote(target[1:4])[:1]
    return plain and second not in ("/", "\\", "\t", "\n", "\r") and not _DOTS.search(target)


def _authority_of(settings: _config.Settings, app: Flask) -> Authority:
    if settings.is_fake:
        from .testing import FakeAuthority  # noqa: PLC0415

        return FakeAuthority()
    return RemoteAuthority(settings, _logger())


def _logger() -> Any:
    import logging  # noqa: PLC0415

    return logging.getLogger("cloakroom_flask")


def _wants_page(request: Request) -> bool:
    offered = ["application/json", "text/html"]
    return request.accept_mimetypes.best_match(offered) == "text/html"


def _call(handler: Callable[..., Any], refusal: CloakroomError) -> Any:
    takes_refusal = bool(inspect.signature(handler).parameters)
    call = request_ctx.app.ensure_sync(handler)
    return call(refusal) if takes_refusal else call()


def _response(answer: Any, refusal: Refused) -> AnyResponse:
    if isinstance(answer, AnyResponse):
        return answer
    if not isinstance(answer, tuple):
        answer = (answer, refusal.status)
    made: AnyResponse = request_ctx.app.make_response(answer)
    return made
