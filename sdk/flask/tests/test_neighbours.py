"""Beside what people have in the same application."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.views import MethodView

from cloakroom_flask import Cloakroom, current_user, login_required
from cloakroom_flask.jwt import jwt_required
from cloakroom_flask.testing import bearer, sign_in
from site_of_tests import build


@pytest.fixture
def app() -> Flask:
    app = Flask("app")
    app.config.update(TESTING=True, CLOAKROOM_URL="fake:")
    Cloakroom(app, login_view="/login")
    return build(app)


def test_refusals_survive_flask_restx(app: Flask) -> None:
    restx = pytest.importorskip("flask_restx")

    class Thing(restx.Resource):  # type: ignore[misc, name-defined]
        @login_required
        def get(self) -> dict[str, Any]:
            return {"id": current_user.id}

        @jwt_required()
        def post(self) -> dict[str, Any]:
            return {"id": current_user.id}

    restx.Api(app, prefix="/x").add_resource(Thing, "/thing")
    client = app.test_client()
    answer = client.get("/x/thing")
    assert (answer.status_code, answer.json["code"]) == (401, "credentials_required")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    answer = client.post("/x/thing", headers={"Authorization": "Bearer junk"})
    assert (answer.status_code, answer.json["code"]) == (401, "token_invalid")
    assert client.post("/x/thing", headers=bearer(app, "ada")).json == {"id": "ada"}


def test_class_based_views_are_guarded_and_checked(app: Flask) -> None:
    class Thing(MethodView):
        decorators = [login_required]  # noqa: RUF012

        def post(self) -> dict[str, Any]:
            return {"id": current_user.id}

    app.add_url_rule("/thing", view_func=Thing.as_view("thing"))
    client = app.test_client()
    assert client.post("/thing").status_code == 401
    token = sign_in(client, "ada")
    assert client.post("/thing").status_code == 403
    assert client.post("/thing", headers={"X-CSRF-Token": token}).json == {"id": "ada"}


def test_async_views_are_guarded(app: Flask) -> None:
    pytest.importorskip("asgiref")

    @app.get("/async")
    @login_required
    async def view() -> dict[str, Any]:
        return {"id": current_user.id}

    client = app.test_client()
    assert client.get("/async").status_code == 401
    sign_in(client, "ada")
    assert client.get("/async").json == {"id": "ada"}


def test_flask_logins_user_classes_will_do(app: Flask) -> None:
    flask_login = pytest.importorskip("flask_login")
    from cloakroom_flask import login_user

    class User(flask_login.UserMixin):  # type: ignore[misc, name-defined]
        def __init__(self, key: int) -> None:
            self.id = key

    app.extensions["cloakroom"].extension.user_loader(lambda key: User(int(key)))

    @app.get("/in")
    def sign_in_here() -> dict[str, Any]:
        login_user(User(7))
        return {"id": current_user.get_id()}

    client = app.test_client()
    assert client.get("/in").json == {"id": "7"}
    assert client.get("/me").json["id"] == 7


def test_a_context_without_a_request_has_nobody(app: Flask) -> None:
    with app.app_context():
        assert not current_user.is_authenticated
