"""Section 5 of the HTTP contract."""

from __future__ import annotations

import base64
import os

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from cloakroom_flask import csrf_exempt
from cloakroom_flask._csrf import is_token_of, make_token, origin_of
from conftest import AppMaker
from site_of_tests import build

KEY = base64.urlsafe_b64encode(bytes(range(32))).rstrip(b"=").decode()
OWN = {"Origin": "http://localhost"}


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return build(make_app())


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    return client


def token_of(client: FlaskClient) -> str:
    return client.get("/csrf").text


def test_d1_an_unsafe_request_by_cookie_needs_a_token(client: FlaskClient) -> None:
    answer = client.post("/guarded")
    assert (answer.status_code, answer.json["code"]) == (403, "csrf_failed")
    assert "step 4" in answer.json["detail"]
    token = token_of(client)
    assert client.post("/guarded", headers={"X-CSRF-Token": token}).status_code == 200
    assert client.post("/guarded", data={"csrf_token": token}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "Same-Origin"},
        {"Sec-Fetch-Site": "same-origin,cross-site"},
        {"Sec-Fetch-Site": ""},
        {"Origin": "null"},
        {"Origin": "null", "Referer": "http://localhost/"},
        {"Origin": "https://localhost"},
        {"Origin": "http://localhost.evil.com"},
        {"Origin": "http://evillocalhost"},
        {"Origin": "http://localhost:444"},
        {"Origin": "http://localhost@evil"},
        {"Origin": "http://localhost."},
        {"Origin": "http://localhost,http://localhost"},
        {"Referer": "http://evil/?http://localhost/"},
        {"Referer": "http://localhost.evil/"},
        {"Referer": "http://localhost@evil/"},
    ],
)
def test_d2_d3_d4_d5_foreign_requests_are_refused_even_with_a_token(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    token = {"X-CSRF-Token": token_of(client)}
    answer = client.post("/guarded", headers={**token, **headers})
    assert (answer.status_code, answer.json["code"]) == (403, "csrf_failed")
    for own in (
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        OWN,
        {"Origin": "http://localhost:80"},
        {"Referer": "http://localhost/form?x=1"},
    ):
        assert client.post("/guarded", headers={**token, **own}).status_code == 200


def test_allowed_origins_pass(make_app: AppMaker) -> None:
    app = build(make_app(CLOAKROOM_ALLOWED_ORIGINS=["https://admin.example"]))
    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    headers = {"Origin": "https://admin.example", "Sec-Fetch-Site": "cross-site"}
    assert client.post("/guarded", headers=headers).status_code == 403
    headers["X-CSRF-Token"] = token_of(client)
    assert client.post("/guarded", headers=headers).status_code == 200


def test_d6_our_own_origin_may_be_fixed(make_app: AppMaker) -> None:
    app = build(make_app(CLOAKROOM_ORIGIN="https://shop.example"))
    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    headers = {"X-CSRF-Token": token_of(client), "Origin": "http://localhost"}
    assert client.post("/guarded", headers=headers).status_code == 403
    headers["Origin"] = "https://shop.example"
    assert client.post("/guarded", headers=headers).status_code == 200


def test_d7_a_token_is_of_one_session(app: Flask, client: FlaskClient) -> None:
    other = app.test_client()
    other.post("/login", json={"user": "mallory"})
    theirs, before = token_of(other), token_of(client)
    client.post("/login", json={"user": "ada"})
    good = token_of(client)
    flipped = good[:-2] + ("A" if good[-2] != "A" else "B") + good[-1]
    for bad in (theirs, before, good[:-1], good + "A", flipped, "", f"{good},{good}"):
        assert client.post("/guarded", headers={"X-CSRF-Token": bad}).status_code == 403
    assert client.post("/guarded", headers={"X-CSRF-Token": good}).status_code == 200
    assert len({token_of(client) for _ in range(20)}) == 20


def test_d8_a_form_before_the_sign_in_needs_its_token_too(app: Flask) -> None:
    client = app.test_client()
    assert client.post("/open", headers=OWN).status_code == 403, "a browser without a session"
    token = token_of(client)
    assert client.post("/open", headers=OWN).status_code == 403
    assert client.post("/open", headers={**OWN, "X-CSRF-Token": token}).status_code == 200
    foreign = {"Origin": "http://evil", "X-CSRF-Token": token}
    assert client.post("/open", headers=foreign).status_code == 403


def test_a_flash_on_the_forms_page_doesnt_end_the_tokens_session(app: Flask) -> None:
    from flask import flash, get_flashed_messages

    from cloakroom_flask import csrf_token

    @app.get("/flash")
    def flashing() -> str:
        flash("hello")
        return ""

    @app.get("/form")
    def form() -> str:
        get_flashed_messages()
        return csrf_token()

    client = app.test_client()
    client.get("/flash")
    token = client.get("/form").text
    assert client.post("/open", headers={"X-CSRF-Token": token}).status_code == 200


def test_a_program_without_cookie_needs_no_token(app: Flask) -> None:
    assert app.test_client().post("/open").status_code == 200


def test_d10_a_bearer_token_needs_none_and_never_falls_back(
    app: Flask, client: FlaskClient
) -> None:
    tokens = client.post("/tokens", json={"user": "ada"}).json
    good = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert client.post("/guarded", headers=good).status_code == 200
    for bad in ("Bearer junk", "Bearer ", "Bearer", "bearer junk", "Bearer a.b.c"):
        answer = client.post("/guarded", headers={"Authorization": bad})
        assert answer.status_code == 401, bad
        assert client.get("/me", headers={"Authorization": bad}).status_code == 401
    for other in ("Basic YTpi", "Digest x"):
        assert client.post("/guarded", headers={"Authorization": other}).status_code == 403


def test_a_guarded_view_tells_a_browser_without_session_to_sign_in(app: Flask) -> None:
    client = app.test_client()
    client.set_cookie("theme", "dark")
    answer = client.post("/guarded", headers=OWN)
    assert (answer.status_code, answer.json["code"]) == (401, "credentials_required")


def test_views_and_blueprints_can_be_exempt(make_app: AppMaker) -> None:
    from flask import Blueprint

    app = build(make_app())
    hooks = csrf_exempt(Blueprint("hooks", "hooks"))
    hooks.post("/hook")(lambda: "ok")
    app.register_blueprint(hooks)
    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    assert client.post("/hook").status_code == 200
    assert client.post("/guarded").status_code == 403


def test_the_check_can_be_left_out(make_app: AppMaker) -> None:
    app = build(make_app(CLOAKROOM_CSRF=False))
    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    assert client.post("/guarded").status_code == 200


@given(st.binary(min_size=32, max_size=32), st.text(max_size=80))
def test_only_a_token_of_the_key_is_one(key: bytes, text: str) -> None:
    encoded = base64.urlsafe_b64encode(key).rstrip(b"=").decode()
    assert is_token_of(encoded, make_token(encoded))
    assert not is_token_of(encoded, text)
    assert not is_token_of(KEY, make_token(encoded)) or encoded == KEY


def test_the_authoritys_tokens_and_ours_are_the_same(
    client: FlaskClient, app: Flask, make_app: AppMaker
) -> None:
    view = app.extensions["cloakroom"].authority.lookup(client.get_cookie("session").value).view
    opened = app.extensions["cloakroom"].authority.open({"subject": "ada", "delivery": "cookie"})
    assert is_token_of(opened["session"]["csrf_key"], opened["csrf_token"])
    assert not is_token_of(view["csrf_key"], opened["csrf_token"])


@given(st.text())
def test_any_text_is_an_origin_or_is_not(text: str) -> None:
    origin_of(text)
    origin_of(text, whole=False)
    assert origin_of("null") is None


def test_hosts_of_the_environment_dont_matter() -> None:
    assert origin_of("http://a.example:80") == origin_of("http://A.example")
    assert origin_of(f"http://{os.sep}") is None
