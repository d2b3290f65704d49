"""Sessions that the real libraries have written, moved at their next request."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import jwt
import pytest
from flask import Flask, session
from flask.testing import FlaskClient

from cloakroom_flask import migrate
from cloakroom_flask.migrate import FlaskSessionRedis, HmacTokens, SignedCookie
from conftest import AppMaker, Server, free_port, wait_until, wait_until_fresh
from site_of_tests import build

SECRET = "an old secret of 32 bytes or more, as it should be"


def old_site(app: Flask) -> Flask:
    """What the application was before."""

    @app.get("/old-login/<user>")
    def old_login(user: str) -> str:
        session["user_id"] = user
        session["role"] = "admin"
        session["at"] = datetime(2026, 1, 2, tzinfo=timezone.utc)
        session["cart"] = {"apple": 2}
        session.permanent = True
        return ""

    @app.get("/old-cart")
    def old_cart() -> str:
        session["cart"] = {"pear": 1}
        return ""

    return app


def old_cookie_of(client: FlaskClient) -> str:
    return str(client.get_cookie("session").value)


def old_flask() -> Flask:
    app = Flask("old")
    app.secret_key = SECRET
    return old_site(app)


def claims_of(data: Any) -> dict[str, Any]:
    return {"role": data["role"]}


def test_flasks_signed_cookie_moves_and_is_retired(
    make_app: AppMaker, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = old_flask().test_client()
    old.get("/old-login/cora")
    cookie = old_cookie_of(old)
    app = build(make_app(SECRET_KEY=SECRET, legacy=[SignedCookie(claims=claims_of)]))
    client = app.test_client()
    client.set_cookie("session", cookie)
    answer = client.get("/me")
    assert answer.json == {"id": "cora", "via": "cookie", "role": "admin"}
    assert "session=cks_" in answer.headers["Set-Cookie"] and "Expires" in str(answer.headers)
    data = client.get("/data").json
    assert data["cart"] == {"apple": 2} and data["at"].startswith("Fri, 02 Jan 2026")
    assert client.get("/me").json["id"] == "cora"
    assert len(server.live_sessions("cora")) == 1

    # A request that was on its way at the same time is taken; a copy of the cookie is not.
    late = app.test_client()
    late.set_cookie("session", cookie)
    assert late.get("/me").json["id"] == "cora"
    monkeypatch.setattr(migrate, "GRACE", -1.0)
    thief = app.test_client()
    thief.set_cookie("session", cookie)
    answer = thief.get("/me")
    assert (answer.status_code, answer.json["code"]) == (401, "session_ended")


def test_signed_cookies_that_are_forged_or_too_old_open_nothing(make_app: AppMaker) -> None:
    old = old_flask().test_client()
    old.get("/old-login/mallory")
    cookie = old_cookie_of(old)
    app = build(make_app(SECRET_KEY="another secret", legacy=[SignedCookie()]))
    young = build(
        make_app(SECRET_KEY=SECRET, PERMANENT_SESSION_LIFETIME=1, legacy=[SignedCookie()])
    )
    time.sleep(2.1)
    for site in (app, young):
        client = site.test_client()
        for value in (cookie, cookie[:-2], "eyJ.x.y"):
            client.set_cookie("session", value)
            assert client.get("/me").json["code"] == "credentials_required"
            assert client.get("/data").json == {}


def test_an_old_cart_of_nobody_moves_too(make_app: AppMaker) -> None:
    old = old_flask().test_client()
    old.get("/old-cart")
    app = build(make_app(SECRET_KEY=SECRET, legacy=[SignedCookie()]))
    client = app.test_client()
    client.set_cookie("session", old_cookie_of(old))
    assert client.get("/data").json == {"cart": {"pear": 1}}
    assert client.get("/me").status_code == 401
    client.post("/login", json={"user": "ada"})
    assert client.get("/data").json == {"cart": {"pear": 1}}


def test_the_first_form_after_the_move_needs_only_its_origin(make_app: AppMaker) -> None:
    old = old_flask().test_client()
    old.get("/old-login/cora")
    app = build(make_app(SECRET_KEY=SECRET, legacy=[SignedCookie()]))
    for headers, status in [
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://evil"}, 403),
        ({}, 403),
    ]:
        client = app.test_client()
        client.set_cookie("session", old_cookie_of(old))
        assert client.post("/guarded", headers=headers).status_code == status
    assert client.post("/guarded", headers={"Origin": "http://localhost"}).status_code == 403


def test_while_nobody_knows_the_old_cookie_stays(own_server: Server, make_app: AppMaker) -> None:
    old = old_flask().test_client()
    old.get("/old-login/cora")
    app = build(make_app(of=own_server, SECRET_KEY=SECRET, legacy=[SignedCookie()]))
    client = app.test_client()
    client.set_cookie("session", old_cookie_of(old))
    own_server.stop()
    answer = client.get("/me")
    assert answer.status_code == 503 and "Set-Cookie" not in answer.headers
    own_server.start()
    wait_until(lambda: client.get("/me").status_code == 200, "the authority", 8)


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server isn't installed")
    port = free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
    yield port
    process.terminate()
    process.wait()


def redis_client(port: int) -> Any:
    redis = pytest.importorskip("redis")
    client = redis.Redis(port=port)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    wait_until(answers, "Redis")
    return client


@pytest.mark.parametrize("serialization", ["msgpack", "json"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("signed", [False, True])
def test_flask_session_on_redis_moves_and_is_retired(
    make_app: AppMaker, server: Server, redis_port: int, serialization: str, signed: bool
) -> None:
    flask_session = pytest.importorskip("flask_session")
    client = redis_client(redis_port)
    old_app = Flask("old")
    old_app.secret_key = SECRET
    old_app.config.update(
        SESSION_TYPE="redis",
        SESSION_REDIS=client,
        SESSION_SERIALIZATION_FORMAT=serialization,
        SESSION_USE_SIGNER=signed,
    )
    flask_session.Session(old_app)
    old = old_site(old_app).test_client()
    user = f"dora-{serialization}-{signed}"
    old.get(f"/old-login/{user}")
    cookie = old_cookie_of(old)
    key = f"session:{cookie.partition('.')[0]}"
    assert client.exists(key)

    legacy = FlaskSessionRedis(client, claims=claims_of, use_signer=signed)
    app = build(make_app(SECRET_KEY=SECRET, legacy=[legacy]))
    browser = app.test_client()
    browser.set_cookie("session", cookie)
    assert browser.get("/me").json == {"id": user, "via": "cookie", "role": "admin"}
    assert browser.get("/data").json["cart"] == {"apple": 2}
    assert 0 < client.ttl(key) <= 60, "gone in a minute"
    assert len(server.live_sessions(user)) == 1
    client.delete(key)
    thief = app.test_client()
    thief.set_cookie("session", cookie)
    assert thief.get("/me").status_code == 401


def test_while_the_old_store_is_down_nobody_is_signed_out(make_app: AppMaker) -> None:
    redis = pytest.importorskip("redis")
    app = build(make_app(legacy=[FlaskSessionRedis(redis.Redis(port=free_port()))]))
    browser = app.test_client()
    browser.set_cookie("session", "an old one")
    answer = browser.get("/me")
    assert answer.status_code == 503 and "Set-Cookie" not in answer.headers
    assert browser.get("/").status_code == 200


def test_what_an_old_release_pickled_is_not_run(make_app: AppMaker, redis_port: int) -> None:
    import pickle

    client = redis_client(redis_port)
    client.set("session:evil", pickle.dumps({"user_id": "root"}))
    app = build(make_app(legacy=[FlaskSessionRedis(client)]))
    browser = app.test_client()
    browser.set_cookie("session", "evil")
    assert browser.get("/me").status_code == 401


def old_token(user: str, kind: str = "access", seconds: int = 600, **more: Any) -> str:
    now = int(time.time())
    claims = {"user_id": user, "email": "a@b", "role": "admin", "type": kind}
    return jwt.encode(
        {**claims, "iat": now, "exp": now + seconds, **more}, SECRET, algorithm="HS256"
    )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_old_access_tokens_go_on_and_obey_endings(make_app: AppMaker, server: Server) -> None:
    app = build(make_app(legacy=[HmacTokens(SECRET)]))
    client = app.test_client(use_cookies=False)
    token = old_token("edna")
    for _ in range(3):
        me = client.get("/me", headers=bearer(token)).json
        assert me == {"id": "edna", "via": "bearer", "email": "a@b", "role": "admin"}
    assert client.get("/jwt", headers=bearer(token)).json["id"] is None, "it had no `sub`"
    (view,) = server.live_sessions("edna")
    server.ask("DELETE", "/admin/v1/subjects/edna/sessions")

    def is_over() -> bool:
        return client.get("/me", headers=bearer(token)).json.get("code") == "session_ended"

    wait_until(is_over, "the ending", 5)
    assert view["id"]


def test_tokens_of_flask_jwt_extended_go_on(make_app: AppMaker) -> None:
    extended = pytest.importorskip("flask_jwt_extended")
    old = Flask("old")
    old.config["JWT_SECRET_KEY"] = SECRET
    extended.JWTManager(old)
    with old.app_context():
        more = {"role": "admin"}
        access = extended.create_access_token("ines", additional_claims=more)
        refresh = extended.create_refresh_token("ines", additional_claims=more)
    app = build(make_app(legacy=[HmacTokens(SECRET)]))
    client = app.test_client(use_cookies=False)
    assert client.get("/jwt", headers=bearer(access)).json["id"] == "ines"
    assert client.get("/admin", headers=bearer(access)).status_code == 200
    assert client.get("/jwt", headers=bearer(refresh)).json["code"] == "token_wrong_type"
    fresh = client.post("/refresh", json={"refresh_token": refresh}).json
    assert client.get("/admin", headers=bearer(fresh["access_token"])).status_code == 200


def test_signing_out_ends_an_old_access_token(make_app: AppMaker) -> None:
    app = build(make_app(legacy=[HmacTokens(SECRET)]))
    client = app.test_client(use_cookies=False)
    token, other = old_token("fay"), old_token("fay", seconds=601)
    assert client.get("/me", headers=bearer(other)).status_code == 200
    assert client.post("/logout", headers=bearer(token)).status_code == 200
    assert client.get("/me", headers=bearer(token)).json["code"] == "session_ended"
    assert client.get("/me", headers=bearer(other)).status_code == 200


def test_an_old_refresh_token_is_exchanged_once(
    make_app: AppMaker, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build(make_app(legacy=[HmacTokens(SECRET)]))
    client = app.test_client(use_cookies=False)
    body = {"refresh_token": old_token("gwen", "refresh")}
    tokens = client.post("/refresh", json=body).json
    assert tokens["refresh_token"].startswith("ckr_")
    me = client.get("/me", headers=bearer(tokens["access_token"])).json
    assert me == {"id": "gwen", "via": "bearer", "email": "a@b", "role": "admin"}
    monkeypatch.setattr(migrate, "GRACE", -1.0)
    answer = client.post("/refresh", json=body)
    assert (answer.status_code, answer.json["code"]) == (401, "refresh_token_reused")


def test_old_tokens_are_judged_as_strictly_as_new_ones(make_app: AppMaker) -> None:
    app = build(make_app(legacy=[HmacTokens(SECRET)]))
    # What isn't an old token is judged here, not by asking.
    wait_until_fresh(app)
    client = app.test_client(use_cookies=False)
    token = old_token("ada")
    header, claims, signature = token.split(".")
    for bad, code in [
        (old_token("ada", seconds=-1), "token_expired"),
        (old_token("ada", "refresh"), "token_wrong_type"),
        (jwt.encode({"user_id": "ada"}, SECRET), "token_invalid"),
        (jwt.encode({"user_id": "ada", "exp": 1 << 40}, "x" * 40), "token_invalid"),
        (f"{header}.{claims}.", "token_invalid"),
        (f"{header}.{claims}.{signature[:-2]}AA", "token_invalid"),
        (old_token("", user_id=None), "token_invalid"),
    ]:
        answer = client.get("/me", headers=bearer(bad))
        assert (answer.status_code, answer.json["code"]) == (401, code)
    body = {"refresh_token": token}
    assert client.post("/refresh", json=body).json["code"] == "token_wrong_type"
    fresh = client.post("/tokens", json={"user": "ada"}).json
    assert client.get("/me", headers=bearer(fresh["access_token"])).status_code == 200
    with pytest.raises(ValueError, match="HS256"):
        HmacTokens(SECRET, algorithms=["none"])
