"""What an attacker would try, each by the way that once worked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask import Flask, request, session
from flask.testing import FlaskClient
from jwt.algorithms import OKPAlgorithm

from cloakroom_flask import (
    Cloakroom,
    CloakroomError,
    Refused,
    confirm_login,
    csrf_exempt,
    current_session,
    epoch_of,
    login_user,
    rate_limit,
)
from cloakroom_flask._extension import cookie_of
from cloakroom_flask._revocations import Listener, Revocations, instant
from cloakroom_flask._tokens import TokenVerifier
from cloakroom_flask._wire import Reply
from cloakroom_flask.jwt import jwt_required, verify_jwt_in_request
from conftest import AppMaker, Server
from site_of_tests import build


class Thief:
    """An authority's published keys, whose private halves the test has."""

    def __init__(self, *kids: str) -> None:
        self.keys = {kid: Ed25519PrivateKey.generate() for kid in kids}
        self.published = list(kids)
        self.fails = False
        self.asked = 0
        outer = self

        class Keys(Listener):
            def key(self, kid: str, state: str) -> None:
                outer.verifier.key_changed(kid, state)

            def keys_unknown(self) -> None:
                outer.verifier.forget_keys()

        self.told = Revocations(Keys())
        self.verifier = TokenVerifier(self, lambda: self.told, "cloakroom", "http://a")  # type: ignore[arg-type]

    def ask(self, _method: str, _path: str) -> Reply:
        self.asked += 1
        if self.fails:
            raise CloakroomError("authority_unreachable", 503, "down")
        return Reply(
            200, {}, json.dumps({"keys": [self._jwk(kid) for kid in self.published]}).encode()
        )

    def _jwk(self, kid: str) -> dict[str, Any]:
        public = json.loads(OKPAlgorithm.to_jwk(self.keys[kid].public_key()))
        return {**public, "kid": kid, "alg": "EdDSA"}

    def forge(self, kid: str, seconds: int = 900) -> str:
        now = int(time.time())
        claims = {
            **dict.fromkeys(("nbf", "iat", "auth_time"), now),
            **{"iss": "http://a", "sub": "admin", "aud": "cloakroom", "exp": now + seconds},
            **{"jti": "j" * 24, "sid": "s", "epoch": 9, "amr": [], "acr": "aal1"},
        }
        headers = {"kid": kid, "typ": "at+jwt"}
        return jwt.encode(claims, self.keys[kid], "EdDSA", headers=headers)

    def takes(self, token: str) -> bool:
        try:
            return self.verifier.verify(token) is not None
        except Refused:
            return False

    def tell(self, kid: str, state: str) -> None:
        self.told.apply("key", {"kid": kid, "state": state}, "c")

    def snapshot(self, *keys: dict[str, str]) -> None:
        empty: dict[str, Any] = {"sessions": [], "subjects": [], "tokens": [], "all": None}
        self.told.snapshot({**empty, "keys": keys, "cursor": "c"})


def test_e10_a_revoked_key_stays_revoked_when_it_is_removed_later() -> None:
    thief = Thief("stolen", "next")
    before = thief.forge("stolen")
    assert thief.takes(before)
    # A node that lags behind goes on publishing it.
    thief.tell("stolen", "revoked")
    thief.tell("next", "active")
    assert not thief.takes(before) and thief.takes(thief.forge("next"))
    thief.tell("stolen", "removed")
    assert not thief.takes(before) and not thief.takes(thief.forge("stolen", 10 * 365 * 86_400))
    thief.snapshot()
    assert not thief.takes(before), "a snapshot that is silent about it brings nothing back"
    assert thief.takes(thief.forge("next"))


def test_e10_a_key_that_was_revoked_and_removed_in_an_outage_is_not_known_after_it() -> None:
    thief = Thief("stolen", "next")
    before = thief.forge("stolen")
    assert thief.takes(before)
    thief.published = ["next"]
    thief.told.reset()
    thief.snapshot()
    assert not thief.takes(before) and not thief.takes(thief.forge("stolen"))
    assert thief.takes(thief.forge("next"))


def test_e10_keys_that_are_fetched_while_one_is_revoked_are_fetched_again() -> None:
    thief = Thief("stolen", "next")
    ask = thief.ask

    def late(method: str, path: str) -> Reply:
        reply = ask(method, path)
        if thief.asked == 1:
            thief.published = ["next"]
            thief.snapshot()
        return reply

    thief.ask = late  # type: ignore[method-assign]
    assert not thief.takes(thief.forge("stolen"))
    assert thief.asked == 2


def test_e10_a_token_that_is_judged_while_its_key_is_revoked_is_not_kept() -> None:
    thief = Thief("stolen")
    judge = thief.verifier._judge

    def slowly(token: str, key: Any) -> None:
        judge(token, key)
        thief.tell("stolen", "revoked")

    thief.verifier._judge = slowly  # type: ignore[method-assign]
    token = thief.forge("stolen")
    assert not thief.takes(token)
    assert not thief.takes(token)


def test_keys_are_looked_at_anew_after_a_while_and_kept_where_that_fails() -> None:
    thief = Thief("key", "unpublished")
    token = thief.forge("key")
    assert thief.takes(token) and thief.takes(token) and thief.asked == 1
    thief.verifier._fetched_at -= 301
    thief.fails = True
    assert thief.takes(token) and thief.takes(token), "the feed would have told"
    assert thief.asked == 2
    thief.verifier._fetched_at -= 61
    thief.fails, thief.published = False, ["unpublished"]
    assert not thief.takes(token)


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    app = build(make_app())

    @app.post("/guess")
    @csrf_exempt
    @rate_limit("3/1m")
    def guess() -> tuple[str, int]:
        return "wrong password", 401

    @app.post("/tutorial")
    @csrf_exempt
    def tutorial() -> str:
        # As in Flask's own tutorial, with a request in between where a test has one.
        session.get("seen")
        between = app.extensions.pop("between", None)
        if between is not None:
            between()
        session.clear()
        session.permanent = bool(request.args.get("permanent"))
        session["user_id"] = request.get_json()["user"]
        return ""

    return app


def holder_of(app: Flask, client: FlaskClient) -> FlaskClient:
    other = app.test_client()
    other.set_cookie("session", client.get_cookie("session").value)  # type: ignore[union-attr]
    return other


def test_j8_a_fresh_session_is_no_fresh_quota(app: Flask) -> None:
    statuses = []
    for _ in range(5):
        client = app.test_client()
        token = client.get("/csrf").text
        answer = client.post("/guess", headers={"X-CSRF-Token": token})
        statuses.append(answer.status_code)
    assert statuses == [401, 401, 401, 429, 429]
    assert answer.headers["RateLimit-Policy"].startswith('"network"')
    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    answer = client.post("/guess")
    assert answer.status_code == 401
    assert answer.headers["RateLimit-Policy"].startswith('"session"')


@pytest.mark.parametrize("query", ["", "?permanent=1"])
def test_a3_clearing_before_a_sign_in_leaves_a_planted_cookie_behind(
    app: Flask, server: Server, query: str
) -> None:
    planted = app.test_client()
    planted.post("/data", json={"seen": 1})
    victim = holder_of(app, planted)
    victim.post(f"/tutorial{query}", json={"user": "victim"})
    assert victim.get_cookie("session").value != planted.get_cookie("session").value
    assert victim.get("/data").json == {"user_id": "victim"}
    assert planted.get("/data").json == {}


@pytest.mark.parametrize("query", ["", "?permanent=1"])
def test_a3_a_request_that_was_open_before_a_sign_in_gets_no_cookie_of_its_user(
    app: Flask, query: str
) -> None:
    planted = app.test_client()
    planted.post("/data", json={"seen": 1})
    victim = holder_of(app, planted)
    app.extensions["between"] = lambda: victim.post(f"/tutorial{query}", json={"user": "victim"})
    answer = planted.post(f"/tutorial{query}", json={"user": "mallory"})
    assert answer.status_code == 200
    assert planted.get_cookie("session").value != victim.get_cookie("session").value
    assert planted.get("/data").json == {"user_id": "mallory"}
    assert victim.get("/data").json == {"user_id": "victim"}


@pytest.mark.parametrize("key", ["user_id", "_user_id"])
def test_a3_writing_down_who_it_is_leaves_a_planted_cookie_behind(app: Flask, key: str) -> None:
    planted = app.test_client()
    planted.post("/data", json={"cart": 1})
    victim = holder_of(app, planted)
    victim.post("/data", json={key: "victim"})
    cookie = victim.get_cookie("session").value
    assert cookie != planted.get_cookie("session").value
    assert victim.get("/data").json["cart"] == 1
    assert planted.get("/data").json == {}
    victim.post("/data", json={key: "victim", "cart": 2})
    assert victim.get_cookie("session").value == cookie, "it is the same user"


@pytest.mark.parametrize("regenerates", [True, False])
def test_a3_regenerating_leaves_a_planted_cookie_behind(app: Flask, regenerates: bool) -> None:
    @app.post("/own")
    @csrf_exempt
    def own() -> str:
        session["account"] = "victim"
        if regenerates:
            app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        return ""

    planted = app.test_client()
    planted.post("/data", json={"cart": 1})
    victim = holder_of(app, planted)
    victim.post("/own")
    data = victim.get("/data").json
    assert (data["cart"], data["account"]) == (1, "victim")
    cookie = victim.get_cookie("session").value
    victim.post("/data", json={"cart": 2})
    assert victim.get_cookie("session").value == cookie, "it moves once"
    # Without it the cookie stays, as the README says.
    assert ("account" in planted.get("/data").json) is not regenerates


def test_regenerating_leaves_a_user_signed_in(app: Flask) -> None:
    @app.post("/own")
    @csrf_exempt
    def own() -> str:
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        return ""

    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    cookie = client.get_cookie("session").value
    assert client.post("/own").status_code == 200
    assert client.get("/me").json["id"] == "ada"
    assert client.get_cookie("session").value == cookie


def test_clearing_and_leaving_it_empty_ends_a_visitors_session(app: Flask) -> None:
    @app.get("/clear")
    def clear() -> str:
        session.clear()
        return ""

    client = app.test_client()
    client.post("/data", json={"a": 1})
    former = holder_of(app, client)
    assert "Max-Age=0" in client.get("/clear").headers["Set-Cookie"]
    assert former.get("/data").json == {}
    client.get("/clear")
    assert client.get_cookie("session") is None


def test_what_one_user_leaves_behind_is_not_the_next_ones(app: Flask, server: Server) -> None:
    client = app.test_client()
    client.post("/data", json={"cart": 1})
    client.post("/login", json={"user": "usr_a", "remember": True})
    assert client.get("/data").json == {"cart": 1}
    client.post("/data", json={"mfa_passed": True})
    client.post("/login", json={"user": "usr_a"})
    assert client.get("/data").json == {"cart": 1, "mfa_passed": True}
    answer = client.post("/login", json={"user": "usr_b"})
    assert "Expires" not in answer.headers["Set-Cookie"], "nor how long it is remembered"
    assert client.get("/data").json == {}
    assert client.get("/me").json["id"] == "usr_b"
    client.post("/data", json={"b": 1})
    assert client.get("/data").json == {"b": 1}


def test_the_next_user_has_what_their_own_sign_in_said(app: Flask, server: Server) -> None:
    @app.get("/switch")
    def switch() -> dict[str, Any]:
        session["old"] = session.get("mine")
        session.permanent = True
        login_user("usr_d")
        return dict(session)

    client = app.test_client()
    client.post("/login", json={"user": "usr_c", "remember": True})
    client.post("/data", json={"mine": 1, "secret": 2})
    answer = client.get("/switch")
    assert answer.json == {"old": 1, "_permanent": True}
    assert "Expires" in answer.headers["Set-Cookie"]
    assert client.get("/data").json == {"old": 1}
    (view,) = server.live_sessions("usr_d")
    assert view["idle_expires_at"] > time.strftime(
        "%Y-%m-%d", time.gmtime(time.time() + 86400 * 30)
    )


def test_a_sign_in_over_a_session_that_is_over_works_also_with_an_epoch(
    app: Flask, server: Server
) -> None:
    @app.get("/with-epoch")
    def with_epoch() -> str:
        session.get("a")
        between: Callable[[], Any] | None = app.extensions.pop("between", None)
        if between is not None:
            between()
        login_user("usr_e", epoch=0)
        return ""

    client = app.test_client()
    sid = client.post("/data", json={"a": 1}).json["sid"]
    sid = (
        sid
        or server.ask(
            "POST", "/admin/v1/sessions/verify", {"token": client.get_cookie("session").value}
        )["session"]["id"]
    )
    app.extensions["between"] = lambda: server.ask("DELETE", f"/admin/v1/sessions/{sid}")
    assert client.get("/with-epoch").status_code == 200
    assert client.get("/me").json["id"] == "usr_e"
    server.ask("DELETE", "/admin/v1/subjects/usr_e/sessions")
    for late in (app.test_client(), client):
        answer = late.get("/with-epoch")
        assert (answer.status_code, answer.json["code"]) == (409, "conflict")


def test_g1_a_sign_out_everywhere_beats_what_the_same_request_does_after_its_sign_in(
    app: Flask, server: Server
) -> None:
    @app.post("/late")
    @csrf_exempt
    def late() -> str:
        login_user("usr_l", epoch=0)
        session["a"] = 1
        server.ask("DELETE", "/admin/v1/subjects/usr_l/sessions")
        session.permanent = True
        return ""

    client = app.test_client()
    client.post("/late")
    assert client.get("/me").status_code == 401
    assert server.live_sessions("usr_l") == []


def test_g2_a_confirmation_of_a_session_that_is_over_is_refused(app: Flask, server: Server) -> None:
    @app.post("/confirm-late")
    @csrf_exempt
    def confirm_late() -> str:
        assert current_session.actor is None
        server.ask("DELETE", "/admin/v1/subjects/usr_k/sessions")
        confirm_login()
        return ""

    client = app.test_client()
    client.post("/login", json={"user": "usr_k"})
    answer = client.post("/confirm-late")
    assert (answer.status_code, answer.json["code"]) == (401, "session_ended")
    assert client.get("/me").status_code == 401
    assert server.live_sessions("usr_k") == []


def test_a_sign_out_everywhere_while_the_password_was_checked_wins(
    make_app: AppMaker, server: Server
) -> None:
    app = build(make_app(CLOAKROOM_API_KEY=server.root_key))

    @app.get("/in/<user>/<int:epoch>")
    def sign_in(user: str, epoch: int) -> dict[str, Any]:
        login_user(user, epoch=epoch)
        return {"epoch": epoch_of(user)}

    with app.test_request_context():
        assert epoch_of("usr_w") == 0, "who never had a session"
    client = app.test_client()
    assert client.get("/in/usr_w/0").json == {"epoch": 0}
    client.post("/everywhere")
    answer = client.get("/in/usr_w/0")
    assert (answer.status_code, answer.json["code"]) == (409, "conflict")
    assert client.get("/in/usr_w/1").json == {"epoch": 1}
    with build(make_app()).test_request_context(), pytest.raises(CloakroomError) as caught:
        epoch_of("usr_w")
    assert caught.value.error_code == "api_key_refused" and "users:read" in str(caught.value)


@pytest.mark.parametrize("strange", ["\xa0", "\x0b", "\x0c", "\x1c", "\x85", '"', "x"])
def test_c2_nothing_but_the_exact_name_is_the_session_cookie(app: Flask, strange: str) -> None:
    name = "__Host-session"
    for header in (
        f"{strange}{name}=cks_x",
        f"a=b; {strange}{name}=cks_x",
        f"{name}{strange}=cks_x",
    ):
        with app.test_request_context(environ_overrides={"HTTP_COOKIE": header}):
            assert cookie_of(request._get_current_object(), name) is None  # type: ignore[attr-defined]


def test_c2_blanks_after_a_semicolon_are_no_part_of_a_name(app: Flask) -> None:
    for header, found in [
        ("a=b; \tsession=cks_x", "cks_x"),
        ("session =cks_x", None),
        ("session=cks_x ", "cks_x "),
        ("$version=1; session=cks_x", None),
        ("session=cks_\xe9", None),
    ]:
        with app.test_request_context(environ_overrides={"HTTP_COOKIE": header}):
            assert cookie_of(request._get_current_object(), "session") == found, header  # type: ignore[attr-defined]


def test_a_confirmation_keeps_whoever_acts_as_the_user() -> None:
    app = Flask("app")
    app.config.update(TESTING=True, CLOAKROOM_URL="fake:")
    Cloakroom(app)
    build(app)

    @app.get("/actor")
    def actor() -> dict[str, Any]:
        return {"id": current_session.subject, "actor": current_session.actor}

    authority = app.extensions["cloakroom"].authority
    body = {"subject": "usr_v", "actor": "usr_support", "data": {}}
    client = app.test_client()
    client.set_cookie("session", authority.open(body)["session_token"])
    impersonated = {"id": "usr_v", "actor": "usr_support"}
    assert client.get("/actor").json == impersonated
    assert client.post("/confirm").status_code == 200
    assert client.get("/actor").json == impersonated
    tokens = authority.open({**body, "delivery": "bearer"})
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert app.test_client().get("/actor", headers=headers).json == impersonated
    client.post("/login", json={"user": "ada"})
    assert client.get("/actor").json == {"id": "ada", "actor": None}


def test_an_impersonation_stays_one_and_ends_no_session_but_itself(
    app: Flask, server: Server
) -> None:
    @app.get("/actor")
    def actor() -> dict[str, Any]:
        return {"actor": current_session.actor}

    own, client = app.test_client(), app.test_client()
    own.post("/login", json={"user": "usr_i"})
    body = {"subject": "usr_i", "actor": "usr_support"}
    opened = server.ask("POST", "/admin/v1/sessions", body)
    client.set_cookie("session", opened["session_token"])
    assert client.post("/confirm").status_code == 200
    assert client.get_cookie("session").value != opened["session_token"]
    assert client.get("/actor").json == {"actor": "usr_support"}
    views = [view for view in server.live_sessions("usr_i") if view.get("actor")]
    assert [instant(v["expires_at"]) - instant(v["created_at"]) <= 3600 for v in views] == [True]
    answer = client.post("/everywhere")
    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")
    tokens = server.ask("POST", "/admin/v1/sessions", {**body, "delivery": "bearer"})
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    program = app.test_client()
    assert program.get("/actor", headers=headers).json == {"actor": "usr_support"}
    assert program.post("/everywhere", headers=headers).status_code == 403
    assert own.get("/actor").json == {"actor": None}
    assert own.post("/everywhere").json == {"revoked": 3}


def test_a_refresh_token_opens_no_view(app: Flask) -> None:
    with pytest.raises(ValueError, match="refresh_access_token"):
        jwt_required(refresh=True)
    with (
        app.test_request_context(),
        pytest.raises(ValueError, match="refresh_access_token"),
    ):
        verify_jwt_in_request(refresh=True)
