"""`flask.session`, to the letter of Flask."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from flask import Flask, flash, get_flashed_messages, session
from markupsafe import Markup

from cloakroom_flask import CloakroomSessionInterface
from conftest import AppMaker, Server
from site_of_tests import build

VALUES: dict[str, Any] = {
    "tuple": (1, "two", (3,)),
    "bytes": b"\x00\xff",
    "time": datetime(2026, 11, 24, 10, 0, tzinfo=timezone.utc),
    "uuid": uuid.UUID(int=7),
    "markup": Markup("<b>bold</b>"),
    "nested": {"a": [1, None, {"b": (None,)}]},
    "tagged": {" t": [1]},
    "none": None,
    "empty": {},
}


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return build(make_app())


def test_values_survive_as_in_flasks_own_sessions(app: Flask) -> None:
    seen: dict[str, Any] = {}

    @app.get("/put")
    def put() -> str:
        session.update(VALUES)
        return ""

    @app.get("/get")
    def get() -> str:
        seen.update(session)
        return ""

    client = app.test_client()
    client.get("/put")
    client.get("/get")
    assert seen == VALUES
    assert {key: type(value) for key, value in seen.items()} == {
        key: type(value) for key, value in VALUES.items()
    }


def test_an_untouched_session_costs_nothing_and_sets_nothing(app: Flask) -> None:
    answer = app.test_client().get("/")
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in answer.headers.get("Vary", "")


def test_reading_varies_by_cookie_and_sets_none(app: Flask) -> None:
    answer = app.test_client().get("/data")
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Vary"] == "Cookie"


def test_the_cookie_is_a_credential_and_holds_no_data(app: Flask) -> None:
    answer = app.test_client().post("/data", json={"secret": "tulips"})
    line = answer.headers["Set-Cookie"]
    assert line.startswith("session=cks_") and "tulips" not in line
    assert "HttpOnly" in line and "SameSite=Lax" in line and "Path=/" in line
    assert "Secure" not in line and "Expires" not in line
    assert answer.headers["Vary"] == "Cookie"


def test_over_https_the_cookie_has_the_prefix_that_browsers_guard(app: Flask) -> None:
    client = app.test_client()
    answer = client.post("/data", json={"a": 1}, base_url="https://localhost")
    line = answer.headers["Set-Cookie"]
    assert line.startswith("__Host-session=cks_") and "Secure" in line
    assert client.get("/data", base_url="https://localhost").json == {"a": 1}


def test_the_settings_of_the_cookie_are_flasks(make_app: AppMaker) -> None:
    app = build(
        make_app(
            SESSION_COOKIE_NAME="sid",
            SESSION_COOKIE_DOMAIN="app.example",
            SESSION_COOKIE_PATH="/data",
            SESSION_COOKIE_SAMESITE="Strict",
            SESSION_COOKIE_SECURE=True,
            SESSION_COOKIE_PARTITIONED=True,
            SESSION_COOKIE_HTTPONLY=False,
        )
    )
    line = app.test_client().post("/data", json={"a": 1}).headers["Set-Cookie"]
    assert line.startswith("sid=cks_")
    for attribute in ("Domain=app.example", "Path=/data", "SameSite=Strict", "Secure"):
        assert attribute in line
    assert "Partitioned" in line and "HttpOnly" not in line


def test_nested_changes_need_modified_as_everywhere(app: Flask) -> None:
    @app.get("/silent")
    def silent() -> str:
        session["cart"]["silent"] = 1
        return ""

    @app.get("/told")
    def told() -> str:
        session["cart"]["told"] = 1
        session.modified = True
        return ""

    client = app.test_client()
    client.post("/data", json={"cart": {}})
    client.get("/silent")
    assert client.get("/data").json == {"cart": {}}
    client.get("/told")
    assert client.get("/data").json == {"cart": {"told": 1}}


def test_a_session_modified_to_be_empty_ends_and_its_cookie_is_deleted(
    app: Flask, server: Server
) -> None:
    @app.get("/pop")
    def pop() -> str:
        session.pop("a")
        return ""

    client = app.test_client()
    sid = client.post("/data", json={"a": 1}).json["sid"] or _sid_of(client, server)
    line = client.get("/pop").headers["Set-Cookie"]
    assert line.startswith("session=;") and "Max-Age=0" in line
    assert server.ask("GET", f"/admin/v1/sessions/{sid}")["session"]["ended"] is not None


def _sid_of(client: Any, server: Server) -> str:
    token = client.get_cookie("session").value
    found = server.ask("POST", "/admin/v1/sessions/verify", {"token": token})
    return str(found["session"]["id"])


def test_permanent_sessions_have_cookies_that_outlive_the_browser(
    make_app: AppMaker, server: Server
) -> None:
    app = build(make_app(PERMANENT_SESSION_LIFETIME=timedelta(days=20)))

    @app.get("/permanent")
    def permanent() -> str:
        session.permanent = True
        return ""

    client = app.test_client()
    client.post("/data", json={"a": 1})
    assert "Expires" in client.get("/permanent").headers["Set-Cookie"]
    view = server.ask("GET", f"/admin/v1/sessions/{_sid_of(client, server)}")["session"]
    idle = _at(view["idle_expires_at"]) - _at(view["last_seen_at"])
    assert idle == timedelta(days=20), "the authority keeps it as long as the browser"
    assert client.get("/data").json == {"a": 1}
    assert "Expires" in client.get("/").headers["Set-Cookie"], "each request refreshes it"


def test_permanent_sessions_are_not_refreshed_where_that_is_off(make_app: AppMaker) -> None:
    app = build(make_app(SESSION_REFRESH_EACH_REQUEST=False))
    client = app.test_client()
    client.post("/login", json={"user": "ada", "remember": True})
    assert "Set-Cookie" not in client.get("/me").headers


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def test_an_own_should_set_cookie_decides(app: Flask) -> None:
    class Silent(CloakroomSessionInterface):
        def should_set_cookie(self, app: Flask, session: Any) -> bool:
            return False

    client = app.test_client()
    client.post("/data", json={"a": 1})
    app.session_interface = Silent(app.extensions["cloakroom"])
    assert "Set-Cookie" not in client.post("/data", json={"a": 2}).headers
    assert client.get("/data").json == {"a": 2}


def test_new_is_true_until_there_is_a_session(app: Flask) -> None:
    @app.get("/new")
    def new() -> dict[str, bool]:
        return {"new": session.new}

    client = app.test_client()
    assert client.get("/new").json == {"new": True}
    client.post("/data", json={"a": 1})
    assert client.get("/new").json == {"new": False}


def test_flash_works(app: Flask) -> None:
    @app.get("/flash")
    def flashing() -> str:
        flash("saved", "info")
        return ""

    @app.get("/flashed")
    def flashed() -> dict[str, Any]:
        return {"messages": get_flashed_messages(with_categories=True)}

    client = app.test_client()
    client.get("/flash")
    assert client.get("/flashed").json == {"messages": [["info", "saved"]]}
    assert client.get("/flashed").json == {"messages": []}


def test_the_test_clients_session_transaction_works(app: Flask) -> None:
    client = app.test_client()
    with client.session_transaction() as opened:
        opened["a"] = 1
    assert client.get("/data").json == {"a": 1}
    with client.session_transaction() as opened:
        opened["a"] += 1
    assert client.get("/data").json == {"a": 2}


def test_it_is_a_dictionary(app: Flask) -> None:
    @app.get("/dict")
    def dictionary() -> dict[str, Any]:
        assert isinstance(session._get_current_object(), dict)  # type: ignore[attr-defined]
        return {
            "copy": session.copy(),
            "dict": dict(session),
            "len": len(session),
            "in": "a" in session,
            "or": session | {"c": 3},
            "list": sorted(session),
            "true": bool(session),
        }

    client = app.test_client()
    client.post("/data", json={"a": 1, "b": 2})
    both = {"a": 1, "b": 2}
    assert client.get("/dict").json == {
        "copy": both,
        "dict": both,
        "len": 2,
        "in": True,
        "or": {**both, "c": 3},
        "list": ["a", "b"],
        "true": True,
    }


def test_too_much_data_is_the_applications_mistake(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    answer = app.test_client().post("/data", json={"big": "x" * 20_000})
    assert answer.status_code == 500 and "Set-Cookie" not in answer.headers
    assert "not saved" in caplog.text and "big" in caplog.text


@pytest.mark.parametrize(
    "cookie",
    [
        "session=cks_AAAA",
        "session=garbage",
        "session=",
        "session",
        "=",
        "session=cks_%00%ff",
        'session="cks_AAAA"',
        ";;; ; session=\t",
        "session=" + "cks_" + "A" * 8000,
        "Session=x; SESSION=y; session =z",
        "session=cks_\u00e9\u00ff",
    ],
)
def test_malformed_cookies_count_as_none(app: Flask, cookie: str) -> None:
    client = app.test_client(use_cookies=False)
    headers = {"Cookie": cookie}
    assert client.get("/data", headers=headers).json == {}
    answer = client.get("/me", headers=headers)
    assert (answer.status_code, answer.json["code"]) == (401, "credentials_required")
    assert "Set-Cookie" not in answer.headers


def test_c3_two_session_cookies_are_none(app: Flask) -> None:
    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    token = client.get_cookie("session").value
    client = app.test_client(use_cookies=False)
    one, other = f"session={token}", "session=cks_other"
    assert client.get("/me", headers={"Cookie": one}).status_code == 200
    for both in (f"{one}; {other}", f"{other}; {one}", f"{one}; {one}"):
        assert client.get("/me", headers={"Cookie": both}).status_code == 401
    assert client.get("/me", headers={"Cookie": one}).status_code == 200


def test_the_session_of_a_bearer_token_has_data_too(app: Flask) -> None:
    client = app.test_client()
    tokens = client.post("/tokens", json={"user": "ada"}).json
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    answer = client.post("/data", json={"a": 1}, headers=headers)
    assert "Set-Cookie" not in answer.headers
    assert client.get("/data", headers=headers).json == {"a": 1}
