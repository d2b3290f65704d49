"""The application that the tests use."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, request, session

from cloakroom_flask import (
    claims_required,
    confirm_login,
    csrf_exempt,
    csrf_token,
    current_session,
    current_user,
    fresh_login_required,
    generate_tokens,
    login_required,
    login_user,
    logout_everywhere,
    logout_user,
    rate_limit,
    refresh_access_token,
)
from cloakroom_flask.jwt import get_jwt, get_jwt_identity, jwt_required


def build(app: Flask) -> Flask:
    """Gives `app` its routes."""
    _sessions(app)
    _users(app)
    _tokens(app)
    return app


def _sessions(app: Flask) -> None:
    @app.get("/")
    def home() -> str:
        return "public"

    @app.get("/csrf")
    def csrf() -> str:
        return csrf_token()

    @app.get("/data")
    def data() -> dict[str, Any]:
        return {key: value for key, value in session.items() if not key.startswith("_")}

    @app.post("/data")
    @csrf_exempt
    def change() -> dict[str, Any]:
        for key, value in (request.get_json() or {}).items():
            session[key] = value
        return {"sid": session.sid}  # type: ignore[attr-defined]


def _users(app: Flask) -> None:
    @app.post("/login")
    @csrf_exempt
    def login() -> dict[str, Any]:
        body = request.get_json()
        login_user(body["user"], bool(body.get("remember")), claims=body.get("claims"))
        return {"id": current_user.id, "sid": current_session.id}

    @app.post("/logout")
    @csrf_exempt
    def logout() -> str:
        logout_user()
        return ""

    @app.post("/everywhere")
    @csrf_exempt
    def everywhere() -> dict[str, int]:
        return {"revoked": logout_everywhere()}

    @app.post("/confirm")
    @csrf_exempt
    def confirm() -> str:
        confirm_login()
        return ""

    @app.get("/me")
    @login_required
    def me() -> dict[str, Any]:
        return {"id": current_user.id, "via": current_session.via, **current_session.claims}

    @app.get("/fresh")
    @fresh_login_required
    def fresh() -> str:
        return "fresh"

    @app.get("/admin")
    @claims_required(role="admin")
    def admin() -> str:
        return "admin"

    @app.get("/limited")
    @rate_limit("3/1m")
    def limited() -> str:
        return "ok"

    @app.post("/guarded")
    @login_required
    def guarded() -> str:
        return "done"

    @app.post("/open")
    def open_to_all() -> Response:
        return Response("done")


def _tokens(app: Flask) -> None:
    @app.post("/tokens")
    @csrf_exempt
    def tokens() -> dict[str, Any]:
        body = request.get_json()
        return generate_tokens(body["user"], body.get("claims"))

    @app.post("/refresh")
    @csrf_exempt
    def refresh() -> dict[str, Any]:
        return refresh_access_token(request.get_json().get("refresh_token"))

    @app.get("/jwt")
    @jwt_required()
    def jwt() -> dict[str, Any]:
        return {"id": get_jwt_identity(), "claims": get_jwt()}

    @app.get("/jwt-optional")
    @jwt_required(optional=True)
    def jwt_optional() -> dict[str, Any]:
        return {"id": get_jwt_identity()}
