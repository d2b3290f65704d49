"""Tests of applications, without an authority."""

from __future__ import annotations

import time

import pytest
from flask import Flask

from cloakroom_flask import Cloakroom, Unavailable
from cloakroom_flask.testing import bearer, sign_in
from site_of_tests import build


@pytest.fixture
def app() -> Flask:
    app = Flask("app")
    app.config.update(TESTING=True, CLOAKROOM_URL="fake:")
    Cloakroom(app)
    return build(app)


def test_a_signed_in_user_without_a_server(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/me").status_code == 401
    token = sign_in(client, "ada", {"role": "admin"}, data={"cart": (1, 2)})
    assert client.get("/me").json == {"id": "ada", "via": "cookie", "role": "admin"}
    assert client.get("/data").json == {"cart": [1, 2]}
    assert client.get("/admin").status_code == 200
    assert client.post("/guarded").status_code == 403
    assert client.post("/guarded", headers={"X-CSRF-Token": token}).status_code == 200


def test_it_signs_in_and_out_like_the_real_one(app: Flask) -> None:
    client = app.test_client()
    client.post("/data", json={"a": 1})
    client.post("/login", json={"user": "ada"})
    assert client.get("/data").json == {"a": 1}
    other = app.test_client()
    other.post("/login", json={"user": "ada"})
    assert client.post("/everywhere").json == {"revoked": 2}
    assert other.get("/me").json["reason"] == "signed_out_everywhere"


def test_a_bearer_token_without_a_server(app: Flask) -> None:
    client = app.test_client()
    headers = bearer(app, "ada", {"role": "admin"})
    assert client.get("/jwt", headers=headers).json["id"] == "ada"
    assert client.get("/admin", headers=headers).status_code == 200
    tokens = client.post("/tokens", json={"user": "ada"}).json
    fresh = client.post("/refresh", json={"refresh_token": tokens["refresh_token"]}).json
    headers = {"Authorization": f"Bearer {fresh['access_token']}"}
    assert client.get("/me", headers=headers).status_code == 200
    answer = client.get("/jwt", headers={"Authorization": f"Bearer {fresh['refresh_token']}"})
    assert answer.json["code"] == "token_wrong_type"


def test_an_old_sign_in_and_an_outage_can_be_played(app: Flask) -> None:
    client = app.test_client()
    sign_in(client, "ada", auth_time=time.time() - 3600)
    assert client.get("/fresh").json["code"] == "reauthentication_required"
    app.extensions["cloakroom"].authority.fault = Unavailable("played")
    assert client.get("/me").status_code == 503


def test_a_real_application_cant_have_it() -> None:
    app = Flask("app")
    app.config["CLOAKROOM_URL"] = "fake:"
    with pytest.raises(RuntimeError, match="TESTING"):
        Cloakroom(app)


def test_an_application_that_forgot_the_extension_is_told_the_line() -> None:
    app = build(Flask("app"))
    app.testing = True
    with pytest.raises(RuntimeError, match=r"Cloakroom\(app\)"):
        app.test_client().get("/me")
