"""Bearer tokens, judged here and by asking."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask import Flask

from cloakroom_flask import Refused, verify_token
from cloakroom_flask._tokens import TokenVerifier
from conftest import AppMaker, Server, authority_of, wait_until, wait_until_fresh
from site_of_tests import build


@pytest.fixture(params=["local", "asking"])
def app(request: pytest.FixtureRequest, make_app: AppMaker) -> Flask:
    if request.param == "asking":
        # Nothing is ever this fresh: every request asks.
        return build(make_app(CLOAKROOM_MAX_STALENESS=0))
    app = build(make_app())
    wait_until_fresh(app)
    return app


def tokens_of(app: Flask, user: str = "ada", **claims: Any) -> dict[str, Any]:
    answer = app.test_client().post("/tokens", json={"user": user, "claims": claims})
    found: dict[str, Any] = answer.json
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def refusal(app: Flask, token: str, path: str = "/jwt") -> tuple[int, str]:
    answer = app.test_client(use_cookies=False).get(path, headers=bearer(token))
    return answer.status_code, answer.json.get("code", "")


def test_tokens_have_the_usual_members(app: Flask) -> None:
    tokens = tokens_of(app)
    assert set(tokens) == {
        "access_token",
        "refresh_token",
        "expires_in",
        "refresh_expires_in",
        "token_type",
    }
    assert tokens["token_type"] == "Bearer" and tokens["expires_in"] == 900


def test_an_access_token_is_taken_by_both_kinds_of_guard(app: Flask) -> None:
    token = tokens_of(app, role="admin")["access_token"]
    client = app.test_client(use_cookies=False)
    found = client.get("/jwt", headers=bearer(token)).json
    assert found["id"] == "ada" and found["claims"]["role"] == "admin"
    me = client.get("/me", headers=bearer(token)).json
    assert me == {"id": "ada", "via": "bearer", "role": "admin"}
    assert client.get("/admin", headers=bearer(token)).status_code == 200
    assert client.get("/me", headers={"Authorization": f"bearer {token}"}).status_code == 200


def test_jwt_required_takes_no_cookie(app: Flask) -> None:
    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    answer = client.get("/jwt")
    assert (answer.status_code, answer.json["code"]) == (401, "credentials_required")
    assert client.get("/jwt-optional").json == {"id": None}


def test_an_optional_token_must_be_good_if_it_comes(app: Flask) -> None:
    assert refusal(app, "junk", "/jwt-optional") == (401, "token_invalid")


def test_a10_credentials_of_other_types_are_told_apart(app: Flask) -> None:
    tokens = tokens_of(app)
    client = app.test_client()
    client.post("/login", json={"user": "ada"})
    cookie = client.get_cookie("session").value
    for wrong in (tokens["refresh_token"], cookie, "cka_x"):
        assert refusal(app, wrong) == (401, "token_wrong_type")
    program = app.test_client(use_cookies=False)
    for body, expected in [
        ({"refresh_token": tokens["access_token"]}, (401, "token_wrong_type")),
        ({"refresh_token": cookie}, (401, "token_wrong_type")),
        ({"refresh_token": "ckr_forged"}, (401, "token_invalid")),
        ({"refresh_token": "junk"}, (401, "token_invalid")),
        ({"refresh_token": ""}, (400, "refresh_token_required")),
        ({}, (400, "refresh_token_required")),
    ]:
        answer = program.post("/refresh", json=body)
        assert (answer.status_code, answer.json["code"]) == expected, body


def test_a_refresh_brings_new_tokens_with_the_claims_of_now(app: Flask, server: Server) -> None:
    tokens = tokens_of(app, role="user")
    client = app.test_client(use_cookies=False)
    sid = client.get("/jwt", headers=bearer(tokens["access_token"])).json["claims"]["sid"]
    server.ask("PATCH", f"/admin/v1/sessions/{sid}", {"claims": {"role": "admin"}})
    fresh = client.post("/refresh", json={"refresh_token": tokens["refresh_token"]}).json
    assert client.get("/admin", headers=bearer(fresh["access_token"])).status_code == 200


def test_signing_out_by_token_ends_both_tokens(app: Flask) -> None:
    tokens = tokens_of(app)
    client = app.test_client(use_cookies=False)
    assert client.post("/logout", headers=bearer(tokens["access_token"])).status_code == 200
    assert refusal(app, tokens["access_token"]) == (401, "session_ended")
    answer = client.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert answer.json["code"] == "session_ended"


def test_a_denied_token_is_refused_everywhere(app: Flask, server: Server) -> None:
    token = tokens_of(app)["access_token"]
    server.ask("POST", "/admin/v1/tokens/revoke", {"token": token})
    wait_until(lambda: refusal(app, token) == (401, "token_invalid"), "the denial", 5)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forgeries(token: str) -> list[str]:
    """Some of section Q of the security requirements."""
    header, claims, signature = token.split(".")
    kid = jwt.get_unverified_header(token)["kid"]
    body = jwt.decode(token, options={"verify_signature": False})
    other = Ed25519PrivateKey.generate()
    own = {"kid": kid, "typ": "at+jwt"}
    last = signature[-1]
    sibling = chr(ord(last) + 1) if last not in "zZ9_" else chr(ord(last) - 1)
    return [
        f"{part({'alg': 'none', **own})}.{claims}.",
        f"{part({'alg': 'None', **own})}.{claims}.{signature}",
        jwt.encode(body, "secret" * 16, "HS512", headers=own),
        jwt.encode(body, other, "EdDSA", headers=own),
        jwt.encode(body, other, "EdDSA", headers={"kid": "unknown", "typ": "at+jwt"}),
        jwt.encode(body, other, "EdDSA", headers={"typ": "at+jwt"}),
        f"{part({'alg': 'EdDSA', 'kid': kid, 'typ': 'JWT'})}.{claims}.{signature}",
        f"{part({'alg': 'EdDSA', 'kid': kid})}.{claims}.{signature}",
        f"{part({'alg': 'EdDSA', 'jwk': {}, **own})}.{claims}.{signature}",
        f"{header}.{part({**body, 'sub': 'root'})}.{signature}",
        f"{header}.{claims}.",
        f"{header}.{claims}.{'A' * 86}",
        f"{header}.{claims}.{signature[:-1]}{sibling}",
        f"{header}.{claims}.{signature}=",
        f"{header}.{claims}.{signature}.",
        f"{header}.{claims}.{signature} ",
        f"{header}.{claims}%2E{signature}",
        f" {header}.{claims}.{signature}",
        f"{header}.{claims}",
        f"{header}..{signature}",
        "a.b.c",
        "ey" + "A" * 20_000 + ".e.e",
        part({"alg": "EdDSA"}).replace("=", "") + "." + part([1]) + "." + signature,
    ]


def test_e1_e3_e5_forged_tokens_are_refused(app: Flask) -> None:
    token = tokens_of(app)["access_token"]
    assert refusal(app, token)[0] == 200
    for forged in forgeries(token):
        status, code = refusal(app, forged)
        assert status == 401 and code in ("token_invalid", "token_wrong_type"), forged[:80]
    assert refusal(app, token)[0] == 200


def test_e6_a_verdict_is_about_all_bytes_of_a_token(make_app: AppMaker) -> None:
    app = build(make_app())
    wait_until_fresh(app)
    token = tokens_of(app)["access_token"]
    assert refusal(app, token)[0] == 200, "known to be good from here on"
    header, claims, signature = token.split(".")
    body = jwt.decode(token, options={"verify_signature": False})
    other = f"{header}.{part({**body, 'exp': body['exp'] + 1})}.{signature}"
    assert refusal(app, other) == (401, "token_invalid")


def test_an_expired_token_is_told_as_such(own_server: Server, make_app: AppMaker) -> None:
    own_server.stop()
    own_server._settings["TOKEN__ACCESS_TTL"] = "60s"
    own_server.start()
    app = build(make_app(of=own_server))
    wait_until_fresh(app)
    tokens = tokens_of(app)
    token = tokens["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 60
    genuine = authority_of(app).tokens
    assert refusal(app, token)[0] == 200
    digests = genuine._genuine
    for known in digests._entries.values():
        known.claims["exp"] = int(time.time()) - 6
    assert refusal(app, token) == (401, "token_expired")


def test_e2_unknown_keys_are_asked_for_once_a_minute(make_app: AppMaker) -> None:
    app = build(make_app())
    wait_until_fresh(app)
    token = tokens_of(app)["access_token"]
    assert refusal(app, token)[0] == 200
    transport = authority_of(app).transport
    asked: list[str] = []
    ask = transport.ask
    transport.ask = lambda method, path, *rest, **more: (
        asked.append(path) or ask(method, path, *rest, **more)
    )
    for number in range(10):
        forged = jwt.encode(
            jwt.decode(token, options={"verify_signature": False}),
            Ed25519PrivateKey.generate(),
            "EdDSA",
            headers={"kid": f"unknown{number}", "typ": "at+jwt"},
        )
        assert refusal(app, forged) == (401, "token_invalid")
    assert [path for path in asked if "jwks" in path] == []


def test_e10_rotated_and_revoked_keys_are_followed(own_server: Server, make_app: AppMaker) -> None:
    app = build(make_app(of=own_server, CLOAKROOM_MAX_STALENESS="2s"))
    wait_until_fresh(app)
    old = tokens_of(app)["access_token"]
    assert refusal(app, old)[0] == 200
    kid = jwt.get_unverified_header(old)["kid"]
    own_server.ask("POST", f"/admin/v1/keys/{kid}/revoke")
    # Within the staleness that is allowed, and a heartbeat.
    wait_until(lambda: refusal(app, old) == (401, "token_invalid"), "the revocation", 2.5)
    new = tokens_of(app)["access_token"]
    assert jwt.get_unverified_header(new)["kid"] != kid
    wait_until(lambda: refusal(app, new)[0] == 200, "the new key", 5)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "HS256"])
def test_every_algorithm_is_taken(algorithm: str, make_app: AppMaker) -> None:
    secret = "iJ0rV5m2QzXw8bTn4LkY7cGd1sPfHuEaR6oZvK3xM9U"
    # An unoptimised program is slow to find an RSA key.
    settings = {"TOKEN__ALGORITHM": algorithm, "STORE__TIMEOUT": "60s"}
    if algorithm == "HS256":
        settings["TOKEN__HS256_SECRET"] = secret
    server = Server(**settings)
    try:
        app = build(make_app(of=server))
        wait_until_fresh(app)
        token = tokens_of(app)["access_token"]
        assert jwt.get_unverified_header(token)["alg"] == algorithm
        assert refusal(app, token)[0] == 200
        assert refusal(app, token[:-4] + "AAAA") == (401, "token_invalid")
    finally:
        server.remove()


def test_verify_token_returns_claims_or_raises(app: Flask) -> None:
    token = tokens_of(app)["access_token"]
    with app.test_request_context():
        assert verify_token(token)["sub"] == "ada"
        for bad, code in [("ckr_x", "token_wrong_type"), (token[:-4] + "AAAA", "token_invalid")]:
            with pytest.raises(Refused) as caught:
                verify_token(bad)
            assert caught.value.error_code == code


def test_doubled_members_are_no_token() -> None:
    claims = base64.urlsafe_b64encode(b'{"sub": "a", "sub": "b"}').rstrip(b"=").decode()
    verifier = TokenVerifier(None, None, "cloakroom", None)  # type: ignore[arg-type]
    with pytest.raises(Refused):
        verifier.unverified(f"{part({'alg': 'EdDSA', 'kid': 'k', 'typ': 'at+jwt'})}.{claims}.AAAA")


def test_limits_are_counted_for_each_session(make_app: AppMaker) -> None:
    app = build(make_app())
    one, other = app.test_client(), app.test_client()
    for client in (one, other):
        client.post("/login", json={"user": "ada"})
        for left in (2, 1, 0):
            answer = client.get("/limited")
            assert answer.status_code == 200
            assert answer.headers["RateLimit"].startswith(f'"session";r={left};t=')
            assert answer.headers["RateLimit-Policy"] == '"session";q=3;w=60'
        answer = client.get("/limited")
        assert (answer.status_code, answer.json["code"]) == (429, "rate_limited")
        assert 1 <= int(answer.headers["Retry-After"]) <= 20
    anonymous = app.test_client().get("/limited")
    assert anonymous.headers["RateLimit-Policy"].startswith('"network"')
