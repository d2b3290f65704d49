"""Signing in and out, guards, and what a user of Flask-Login expects."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask import Blueprint, Flask, session

from cloakroom_flask import (
    CloakroomError,
    UserMixin,
    claims_required,
    csrf_exempt,
    current_user,
    fresh_login_required,
    is_local_path,
    login_fresh,
    login_required,
    login_user,
)
from conftest import AppMaker, Server, authority_of, wait_until, wait_until_fresh
from site_of_tests import build


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return build(make_app(login_view="login_page"))


def test_signing_in_gives_a_new_cookie_and_keeps_the_data(app: Flask, server: Server) -> None:
    client = app.test_client()
    client.post("/data", json={"cart": {"apple": 2}})
    before = client.get_cookie("session").value
    client.post("/login", json={"user": "ada", "claims": {"role": "admin"}})
    assert client.get_cookie("session").value != before
    assert client.get("/data").json == {"cart": {"apple": 2}}
    assert client.get("/me").json == {"id": "ada", "via": "cookie", "role": "admin"}
    thief = app.test_client()
    thief.set_cookie("session", before)
    answer = thief.get("/me")
    assert (answer.status_code, answer.json["reason"]) == (401, "replaced")


def test_the_former_user_is_signed_out_by_a_sign_in(app: Flask) -> None:
    client = app.test_client()
    client.post("/login", json={"user": "mallory"})
    former = client.get_cookie("session").value
    client.post("/login", json={"user": "ada"})
    thief = app.test_client()
    thief.set_cookie("session", former)
    assert thief.get("/me").status_code == 401
    assert client.get("/me").json["id"] == "ada"


def test_signing_out_ends_the_session_for_good(app: Flask, server: Server) -> None:
    client = app.test_client()
    sid = client.post("/login", json={"user": "ada"}).json["sid"]
    token = client.get_cookie("session").value
    line = client.post("/logout").headers["Set-Cookie"]
    assert line.startswith("session=;") and "Max-Age=0" in line
    ended = server.ask("GET", f"/admin/v1/sessions/{sid}")["session"]["ended"]
    assert ended["reason"] == "signed_out", "not by an operator"
    assert client.get("/me").status_code == 401
    client.set_cookie("session", token)
    answer = client.get("/me")
    assert (answer.status_code, answer.json["code"]) == (401, "session_ended")


def test_signing_out_everywhere_reaches_cookies_and_tokens(app: Flask) -> None:
    one, other = app.test_client(), app.test_client()
    one.post("/login", json={"user": "grace"})
    other.post("/login", json={"user": "grace"})
    tokens = other.post("/tokens", json={"user": "grace"}).json
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    program = app.test_client(use_cookies=False)
    wait_until_fresh(app)
    assert other.get("/me").status_code == program.get("/me", headers=headers).status_code == 200
    assert one.post("/everywhere").json == {"revoked": 3}
    assert other.get("/me").json["reason"] == "signed_out_everywhere"
    assert program.get("/me", headers=headers).json["code"] == "session_ended"
    refreshed = program.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert (refreshed.status_code, refreshed.json["code"]) == (401, "session_ended")


def test_remember_outlives_the_browser_and_idles_as_long(app: Flask, server: Server) -> None:
    client = app.test_client()
    client.post("/login", json={"user": "hedy"})
    assert "Expires" not in client.post("/login", json={"user": "hedy"}).headers["Set-Cookie"]
    answer = client.post("/login", json={"user": "hedy", "remember": True})
    assert "Expires" in answer.headers["Set-Cookie"]
    view = server.ask("GET", f"/admin/v1/sessions/{answer.json['sid']}")["session"]
    assert view["idle_expires_at"] > _in_days(13)


def _in_days(days: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + days * 86400))


def test_clearing_the_session_signs_out_as_with_flask_login(app: Flask) -> None:
    @app.get("/clear")
    def clear() -> dict[str, Any]:
        session.clear()
        return {"user": current_user.id}

    @app.get("/switch")
    def switch() -> dict[str, Any]:
        session.clear()
        login_user("grace")
        session["welcome"] = True
        return {"user": current_user.id}

    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    client.post("/data", json={"a": 1})
    assert client.get("/switch").json == {"user": "grace"}
    assert client.get("/data").json == {"welcome": True}
    assert client.get("/clear").json == {"user": None}
    assert client.get("/me").status_code == 401


def test_permanent_after_login_user_counts_too(app: Flask, server: Server) -> None:
    @app.get("/late")
    def late() -> dict[str, Any]:
        login_user("ida", claims={"role": "admin"})
        session.permanent = True
        session["a"] = 1
        return {}

    client = app.test_client()
    assert "Expires" in client.get("/late").headers["Set-Cookie"]
    assert client.get("/me").json == {"id": "ida", "via": "cookie", "role": "admin"}
    assert client.get("/data").json == {"a": 1}
    (view,) = server.live_sessions("ida")
    assert view["idle_expires_at"] > _in_days(30)


def test_a_user_loader_makes_current_user(make_app: AppMaker) -> None:
    class User(UserMixin):
        def __init__(self, key: str) -> None:
            self.id = key

    app = build(make_app())
    loaded = []

    @app.extensions["cloakroom"].extension.user_loader
    def load(key: str) -> User | None:
        loaded.append(key)
        return None if key == "deleted" else User(key)

    @app.get("/who")
    @login_required
    def who() -> dict[str, Any]:
        assert isinstance(current_user._get_current_object(), User)
        return {"id": current_user.get_id(), "again": current_user.is_authenticated}

    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    loaded.clear()
    assert client.get("/who").json == {"id": "ada", "again": True}
    assert loaded == ["ada"], "once for each request"
    client.post("/login", json={"user": "deleted"})
    assert client.get("/who").status_code == 401


def test_claims_are_compared_exactly(app: Flask) -> None:
    client = app.test_client()
    for role, status in [
        ("admin", 200),
        (["user", "admin"], 200),
        ("Admin", 403),
        ("administrator", 403),
        (["administrator"], 403),
        ({"admin": 1}, 403),
        (True, 403),
    ]:
        client.post("/login", json={"user": "ada", "claims": {"role": role}})
        answer = client.get("/admin")
        assert answer.status_code == status, role
    assert answer.json["code"] == "insufficient_claims"
    client.post("/login", json={"user": "ada"})
    assert client.get("/admin").status_code == 403


def test_claims_required_takes_names_and_choices(app: Flask) -> None:
    @app.get("/named")
    @claims_required("email", role=["admin", "editor"])
    def named() -> str:
        return ""

    client = app.test_client()
    for claims, status in [
        ({"email": "a@b", "role": "editor"}, 200),
        ({"role": "editor"}, 403),
        ({"email": "a@b", "role": "user"}, 403),
    ]:
        client.post("/login", json={"user": "ada", "claims": claims})
        assert client.get("/named").status_code == status


def test_a_changed_claim_counts_at_once(app: Flask, server: Server) -> None:
    client = app.test_client()
    sid = client.post("/login", json={"user": "ada", "claims": {"role": "admin"}}).json["sid"]
    wait_until_fresh(app)
    assert client.get("/admin").status_code == 200
    server.ask("PATCH", f"/admin/v1/sessions/{sid}", {"claims": {"role": "user"}})
    wait_until(lambda: client.get("/admin").status_code == 403, "the change", 5)


def test_a_fresh_sign_in_is_demanded_and_confirmed(make_app: AppMaker) -> None:
    app = build(make_app(CLOAKROOM_FRESH_FOR="1s"))

    @app.get("/lately")
    @fresh_login_required(max_age="1h")
    def lately() -> dict[str, bool]:
        return {"fresh": login_fresh()}

    client = app.test_client()
    client.post("/login", json={"user": "ada", "claims": {"role": "admin"}})
    client.post("/data", json={"a": 1})
    assert client.get("/fresh").status_code == 200
    time.sleep(1.2)
    answer = client.get("/fresh")
    assert (answer.status_code, answer.json["code"]) == (401, "reauthentication_required")
    assert client.get("/lately").json == {"fresh": False}
    before = client.get_cookie("session").value
    client.post("/confirm")
    assert client.get_cookie("session").value != before
    assert client.get("/fresh").status_code == 200
    assert client.get("/admin").status_code == 200
    assert client.get("/data").json == {"a": 1}


def test_browsers_are_sent_to_the_sign_in_page_and_programs_get_json(app: Flask) -> None:
    @app.get("/sign-in", endpoint="login_page")
    def login_page() -> str:
        return ""

    client = app.test_client()
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    answer = client.get("/me?x=1&y=/", headers=browser)
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/sign-in?return_to=%2Fme%3Fx%3D1%26y%3D%2F"
    assert "Accept" in answer.headers["Vary"]
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        answer = client.get("/me", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.content_type == "application/problem+json"
    assert client.post("/guarded", headers=browser).status_code == 401


def test_a_blueprint_may_have_its_own_sign_in_page_or_none(make_app: AppMaker) -> None:
    app = build(make_app(login_view="/sign-in"))
    extension = app.extensions["cloakroom"].extension
    for name in ("shop", "api"):
        blueprint = Blueprint(name, name, url_prefix=f"/{name}")
        blueprint.get("/me")(login_required(lambda: ""))
        app.register_blueprint(blueprint)
    extension.blueprint_login_views = {"shop": "/shop/sign-in", "api": None}
    browser = {"Accept": "text/html"}
    client = app.test_client()
    assert client.get("/me", headers=browser).headers["Location"].startswith("/sign-in?")
    assert client.get("/shop/me", headers=browser).headers["Location"].startswith("/shop/sign-in")
    assert client.get("/api/me", headers=browser).status_code == 401


def test_two_handlers_answer_in_the_applications_way(make_app: AppMaker) -> None:
    app = build(make_app())
    extension = app.extensions["cloakroom"].extension
    extension.unauthorized_handler(lambda: ("who are you?", 401))
    extension.forbidden_handler(lambda refusal: ({"why": refusal.error_code}, 403))
    client = app.test_client()
    answer = client.get("/me")
    assert (answer.status_code, answer.text) == (401, "who are you?")
    client.post("/login", json={"user": "ada"})
    assert client.get("/admin").json == {"why": "insufficient_claims"}


def test_an_error_handler_of_the_application_sees_refusals(app: Flask) -> None:
    @app.errorhandler(401)
    def refused(error: Any) -> tuple[dict[str, str], int]:
        return {"mine": error.error_code}, 401

    assert app.test_client().get("/me").json == {"mine": "credentials_required"}


def test_a_refusal_of_the_authority_names_its_request_there(app: Flask) -> None:
    seen: list[Any] = []

    @app.errorhandler(CloakroomError)
    def note(error: CloakroomError) -> Any:
        seen.append(error)
        return error.get_response()

    @app.post("/late")
    @csrf_exempt
    def late() -> str:
        login_user("ada", epoch=1_000_000)
        return ""

    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    answer = client.post("/late")
    assert (answer.status_code, answer.json["code"]) == (409, "conflict")
    assert len(seen[0].request_id) >= 16
    assert answer.json["request_id"] == seen[0].request_id
    anonymous = app.test_client().get("/me")
    assert anonymous.status_code == 401
    assert seen[1].request_id is None
    assert "request_id" not in anonymous.json


def test_the_session_lists_the_device(app: Flask, server: Server) -> None:
    client = app.test_client()
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0"
    client.post("/login", json={"user": "joan"}, headers={"User-Agent": agent})
    (view,) = server.live_sessions("joan")
    assert view["client"]["ip"] == "127.0.0.1"
    assert "Firefox" in view["client"]["browser"]


def test_templates_know_the_user_and_the_token(app: Flask) -> None:
    from flask import render_template_string

    @app.get("/page")
    def page() -> str:
        return render_template_string("{{ current_user.id }} {{ csrf_token() }}")

    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    user, token = client.get("/page").text.split()
    assert user == "ada"
    assert client.post("/open", data={"csrf_token": token}).status_code == 200


def test_an_ending_elsewhere_is_seen_within_the_bound(app: Flask, server: Server) -> None:
    client = app.test_client()
    sid = client.post("/login", json={"user": "ada"}).json["sid"]
    wait_until_fresh(app)
    assert client.get("/me").status_code == 200
    server.ask("DELETE", f"/admin/v1/sessions/{sid}")
    began = time.monotonic()
    wait_until(lambda: client.get("/me").status_code == 401, "the ending", 5)
    assert time.monotonic() - began < 2


def test_requests_are_answered_without_asking_while_the_feed_is_fresh(app: Flask) -> None:
    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    wait_until_fresh(app)
    client.get("/me")
    transport = authority_of(app).transport
    asked = []
    ask = transport.ask
    transport.ask = lambda *args, **rest: asked.append(args) or ask(*args, **rest)
    for _ in range(20):
        assert client.get("/me").status_code == 200
    assert [path for _, path, *_ in asked if "touch" not in path] == []


def test_b1_use_keeps_a_session_alive_and_idling_ends_it(app: Flask, server: Server) -> None:
    opened = server.ask("POST", "/admin/v1/sessions", {"subject": "ada", "idle_timeout": 5})
    client = app.test_client()
    client.set_cookie("session", opened["session_token"])
    wait_until_fresh(app)
    until = time.monotonic() + 7
    while time.monotonic() < until:
        assert client.get("/me").status_code == 200, "in use, by the reports of this process alone"
        time.sleep(0.1)
    # A use is reported within a second and a half.
    time.sleep(7)
    assert client.get("/me").json["code"] == "session_ended"


@pytest.mark.parametrize(
    ("target", "is_local"),
    [
        ("/account", True),
        ("/a/b?c=//d", True),
        ("/redirect?u=//evil.com", True),
        (None, False),
        ("", False),
        ("account", False),
        ("//evil.com", False),
        ("///evil.com", False),
        ("/\\evil.com", False),
        ("\\/\\/evil.com", False),
        ("/%09/evil.com", False),
        ("/\t/evil.com", False),
        ("/\n/evil.com", False),
        (" //evil.com", False),
        ("https:evil.com", False),
        ("https://evil.com", False),
        ("javascript:alert(1)", False),
        ("/..//evil.com", False),
        ("/.//evil.com", False),
        ("/a/..//evil.com", False),
        ("/%2f/evil.com", False),
    ],
)
def test_o1_return_to_never_leaves_the_site(target: str | None, is_local: bool) -> None:
    assert is_local_path(target) is is_local
