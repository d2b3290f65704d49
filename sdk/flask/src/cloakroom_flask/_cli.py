"""``flask cloakroom …``: the authority as this application sees it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import AppGroup

from ._authority import RemoteAuthority
from ._errors import CloakroomError, Unavailable
from ._http import segment

if TYPE_CHECKING:
    from ._extension import Installed

cloakroom = AppGroup("cloakroom", help="Sessions and their authority.")

#: The exit codes of the program `cloakroom`.
_FAILED, _USAGE, _UNREACHABLE, _NOT_FOUND, _NOT_ALLOWED = 1, 2, 3, 4, 5
_HEARTBEAT_SECONDS = 3.0
_PAGE = 200


class _Ended(click.ClickException):
    """Ends the command with one of the exit codes above."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        vars(self)["exit_code"] = code


@cloakroom.command()
def status() -> None:
    """Whether the authority answers, and takes this application's API key."""
    authority = _authority()
    began = time.monotonic()
    _ask(authority, "GET", "/readyz")
    millis = (time.monotonic() - began) * 1000
    click.echo(f"authority  {authority.transport.url}  ok, {millis:.1f} ms")
    _ask(authority, "GET", "/admin/v1/sessions?limit=1")
    _ask(authority, "POST", "/admin/v1/sessions/touch", {})
    click.echo("api key    sessions:read sessions:write  ok")
    click.echo(f"feed       {_feed(authority)}")


@cloakroom.command()
def check() -> None:
    """Looks at the settings too, and says what is unwise."""
    app: Any = current_app
    installed = _installed()
    click.get_current_context().invoke(status)
    name = app.session_interface.get_cookie_name(app)
    click.echo(f"session    {type(app.session_interface).__name__}, cookie {name!r}")
    for line in _advice(app, installed):
        click.echo(f"advice     {line}")


@cloakroom.command()
@click.option("--subject", help="Only this user's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def sessions(subject: str | None, as_json: bool) -> None:
    """Lists live sessions."""
    for view in _pages(_authority(), subject):
        if as_json:
            view.pop("csrf_key", None)
            click.echo(json.dumps(view))
            continue
        client = view["client"]
        device = " on ".join(part for part in (client["browser"], client["os"]) if part)
        whose = view["subject"] or "(nobody)"
        click.echo(f"{view['id']}  {whose:<24}  {view['last_seen_at']}  {device or '-'}")


@cloakroom.command()
@click.argument("sid")
def revoke(sid: str) -> None:
    """Ends the session SID."""
    _ask(_authority(), "DELETE", f"/admin/v1/sessions/{segment(sid)}?reason=flask+cloakroom+revoke")
    click.echo(f"ended {sid}")


def _installed() -> Installed:
    found: Installed | None = current_app.extensions.get("cloakroom")
    if found is None:
        raise _Ended("this application has no Cloakroom: add Cloakroom(app)", _USAGE)
    return found


def _authority() -> RemoteAuthority:
    authority = _installed().authority
    if not isinstance(authority, RemoteAuthority):
        raise _Ended("CLOAKROOM_URL is 'fake:': there is no authority", _USAGE)
    return authority


def _ask(authority: RemoteAuthority, method: str, path: str, body: Any = None) -> Any:
    try:
        return authority.transport.ask(method, path, body).json()
    except Unavailable as fault:
        raise _Ended(str(fault), _UNREACHABLE) from fault
    except CloakroomError as refusal:
        codes = {401: _NOT_ALLOWED, 403: _NOT_ALLOWED, 404: _NOT_FOUND}
        raise _Ended(str(refusal), codes.get(refusal.status, _FAILED)) from refusal


def _feed(authority: RemoteAuthority) -> str:
    authority.prepare()
    until = time.monotonic() + _HEARTBEAT_SECONDS
    while time.monotonic() < until:
        if authority.is_fresh:
            return f"connected, {authority.feed.staleness * 1000:.0f} ms behind"
        time.sleep(0.05)
    return "NOT fresh: every request asks the authority (is a clock wrong?)"


def _advice(app: Any, installed: Installed) -> Iterator[str]:
    settings = installed.settings
    if not settings.csrf:
        yield "CLOAKROOM_CSRF is off: forms of other sites can act in a user's name"
    if settings.origin is None:
        yield "set CLOAKROOM_ORIGIN to this site's origin, so that a Host header can't choose it"
    if not app.config["SESSION_COOKIE_HTTPONLY"]:
        yield "SESSION_COOKIE_HTTPONLY is off: scripts can read the session cookie"
    if installed.extension.login_view is None:
        yield "no login_view: browsers that aren't signed in get JSON"
    if "flask_login" in app.extensions or hasattr(app, "login_manager"):
        yield "Flask-Login is installed too; only one of both should guard a view"


def _pages(authority: RemoteAuthority, subject: str | None) -> Iterator[dict[str, Any]]:
    after: str | None = None
    while True:
        path = f"/admin/v1/sessions?limit={_PAGE}"
        path += "" if subject is None else f"&subject={segment(subject)}"
        path += "" if after is None else f"&after={segment(after)}"
        page = _ask(authority, "GET", path)
        yield from (view for view in page["sessions"] if view["ended"] is None)
        after = page["next"]
        if after is None:
            return
