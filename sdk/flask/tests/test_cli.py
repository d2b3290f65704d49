"""`flask cloakroom …`."""

from __future__ import annotations

import json

import pytest
from flask import Flask

from conftest import AppMaker, Server
from site_of_tests import build


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return build(make_app())


def test_status_and_check_tell_how_it_is(app: Flask, server: Server) -> None:
    runner = app.test_cli_runner()
    found = runner.invoke(args=["cloakroom", "status"])
    assert found.exit_code == 0, found.output
    assert server.url in found.output and "feed       connected" in found.output
    found = runner.invoke(args=["cloakroom", "check"])
    assert "cookie 'session'" in found.output and "CLOAKROOM_ORIGIN" in found.output


def test_sessions_are_listed_and_ended(app: Flask, server: Server) -> None:
    client = app.test_client()
    sid = client.post("/login", json={"user": "lise"}).json["sid"]
    runner = app.test_cli_runner()
    found = runner.invoke(args=["cloakroom", "sessions", "--subject", "lise"])
    assert sid in found.output and "lise" in found.output
    found = runner.invoke(args=["cloakroom", "sessions", "--subject", "lise", "--json"])
    (view,) = [json.loads(line) for line in found.output.splitlines()]
    assert view["id"] == sid and "csrf_key" not in view
    assert runner.invoke(args=["cloakroom", "revoke", sid]).exit_code == 0
    assert client.get("/me").status_code == 401
    found = runner.invoke(args=["cloakroom", "sessions", "--subject", "lise"])
    assert found.output == ""


def test_exit_codes_are_the_programs(app: Flask, own_server: Server, make_app: AppMaker) -> None:
    runner = app.test_cli_runner()
    unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    assert runner.invoke(args=["cloakroom", "revoke", unknown]).exit_code == 4
    lost = make_app(of=own_server)
    own_server.stop()
    found = lost.test_cli_runner().invoke(args=["cloakroom", "status"])
    assert found.exit_code == 3 and "can't be reached" in found.output
    bare = Flask("bare").test_cli_runner()
    assert bare.invoke(args=["cloakroom", "status"]).exit_code == 2
