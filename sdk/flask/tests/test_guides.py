"""The code of the guides for those who come from elsewhere, as written there."""

from __future__ import annotations

import inspect
import os
import re
import time
from typing import Any

import jwt
import pytest
from flask import Flask, request, session

from cloakroom_flask import current_user, migrate
from conftest import ROOT, Server, wait_until_fresh

SECRET = "an old secret of 32 bytes or more, as it should be"


def guide(name: str) -> str:
    return (ROOT / f"docs/guide/{name}.md").read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The guide's blocks of code in a language, in their order."""
    pattern = rf"^```{language}\n(.*?)^```$"
    return re.findall(pattern, guide(name), re.MULTILINE | re.DOTALL)


def after(diff: str) -> str:
    """What stands there when a diff was applied."""
    kept = [line for line in diff.splitlines() if not line.startswith("-")]
    return "\n".join(line[1:] for line in kept)


@pytest.fixture
def of_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of an application, in its environment."""
    monkeypatch.setenv("CLOAKROOM_URL", server.url)
    monkeypatch.setenv("CLOAKROOM_API_KEY", server.key)
    monkeypatch.setenv("SECRET_KEY", SECRET)
    monkeypatch.setenv("JWT_SECRET", SECRET)


def closed(app: Flask) -> None:
    app.extensions["cloakroom"].authority.close()


@pytest.mark.usefixtures("of_server")
def test_the_guide_from_the_signed_cookie_moves_a_session() -> None:
    old = Flask("old")
    old.secret_key = SECRET

    @old.get("/in")
    def sign_in() -> str:
        session["user_id"] = "ada"
        return ""

    client = old.test_client()
    client.get("/in")
    made: dict[str, Any] = {"__name__": "app", "os": os}
    exec(after(blocks("from-flask-session", "diff")[0]), made)
    app = made["app"]
    app.add_url_rule("/me", view_func=lambda: {"id": current_user.id})
    new = app.test_client()
    new.set_cookie("session", client.get_cookie("session").value)
    assert new.get("/me").json == {"id": "ada"}
    closed(app)


@pytest.mark.usefixtures("of_server")
def test_the_guide_from_flask_session_has_code_that_runs() -> None:
    made: dict[str, Any] = {"app": Flask("app"), "client": object()}
    exec(after(blocks("from-flask-session", "diff")[1]), made)
    assert "cloakroom" in made["app"].extensions
    closed(made["app"])
    (settings,) = blocks("from-flask-session", "python")
    assert eval(settings.strip(), vars(migrate).copy()) is not None
    for named in ("prefix", "use_signer"):
        assert named in inspect.signature(migrate.FlaskSessionRedis).parameters
        assert f"`{named}=" in guide("from-flask-session")


@pytest.mark.usefixtures("of_server")
def test_the_guide_from_pyjwt_takes_old_tokens_and_gives_new_ones() -> None:
    class User:
        id, email, role = "ada", "ada@example.com", "admin"

    app = Flask("app")
    made: dict[str, Any] = {"app": app, "os": os, "request": request, "check": lambda _: User}
    (diff,) = blocks("from-pyjwt", "diff")
    exec(after(diff), made)
    wait_until_fresh(app)

    def old(kind: str) -> str:
        claims = {"user_id": "bob", "email": "b@example.com", "role": "user", "type": kind}
        return jwt.encode({**claims, "exp": int(time.time()) + 3600}, SECRET, "HS256")

    client = app.test_client()

    def me(token: str) -> Any:
        return client.get("/me", headers={"Authorization": f"Bearer {token}"}).json

    assert me(old("access")) == {"id": "bob"}
    moved = client.post("/refresh", json={"refresh_token": old("refresh")}).json
    assert me(moved["access_token"]) == {"id": "bob"}
    own = client.post("/login", json={}).json
    assert me(own["access_token"]) == {"id": "ada"}
    closed(app)


def test_every_setting_and_name_of_the_guides_is_there() -> None:
    parameters = inspect.signature(migrate.HmacTokens).parameters
    named = re.findall(r"`(\w+)=", guide("from-pyjwt"))
    assert {"subject", "claims", "type_claim", "issuer", "algorithms"} <= set(named)
    # `legacy=` is the extension's own.
    assert set(named) - {"legacy"} <= set(parameters), named
