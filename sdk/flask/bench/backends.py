"""The applications that `cargo xtask bench backends` measures, to be served by gunicorn.

One protected route: with cloakroom-flask, with nothing, and with what Flask's users have otherwise.

    gunicorn 'backends:make("cloakroom")'
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from flask import Flask, request, session

SECRET = "a secret of 32 bytes at least, for this benchmark alone"
CART = {"apple": 2}


def bare() -> Flask:
    """The route without anything."""
    app = Flask("bare")
    app.get("/me")(lambda: {"id": "ada"})
    return app


def cloakroom() -> Flask:
    """With ours; `CLOAKROOM_URL` and `CLOAKROOM_API_KEY` say where the authority is."""
    from cloakroom_flask import Cloakroom, current_user, generate_tokens, login_required, login_user

    app = Flask("ours")
    app.config.update(
        CLOAKROOM_URL=os.environ["CLOAKROOM_URL"],
        CLOAKROOM_API_KEY=os.environ["CLOAKROOM_API_KEY"],
    )
    Cloakroom(app)

    @app.get("/login")
    def login() -> dict[str, Any]:
        login_user(request.args["user"])
        session["cart"] = CART
        return {}

    @app.get("/tokens")
    def tokens() -> dict[str, Any]:
        return generate_tokens(request.args["user"])

    @app.get("/me")
    @login_required
    def me() -> dict[str, Any]:
        return {"id": current_user.id}

    @app.get("/cart")
    @login_required
    def cart() -> dict[str, Any]:
        return {"id": current_user.id, "cart": session["cart"]}

    return app


def flask_session() -> Flask:
    """With Flask-Session and its sessions in Redis."""
    from flask_session import Session

    app = Flask("flask-session")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis())
    Session(app)

    @app.get("/login")
    def login() -> dict[str, Any]:
        session["user_id"] = request.args["user"]
        session["cart"] = CART
        return {}

    @app.get("/me")
    def me() -> Any:
        if "user_id" not in session:
            return {}, 401
        return {"id": session["user_id"]}

    @app.get("/cart")
    def cart() -> Any:
        if "user_id" not in session:
            return {}, 401
        return {"id": session["user_id"], "cart": session["cart"]}

    return app


def jwt_extended() -> Flask:
    """With Flask-JWT-Extended and its blocklist in Redis."""
    from flask_jwt_extended import (
        JWTManager,
        create_access_token,
        get_jwt_identity,
        jwt_required,
    )

    app = Flask("jwt-extended")
    app.config["JWT_SECRET_KEY"] = SECRET
    manager, blocklist = JWTManager(app), redis()

    @manager.token_in_blocklist_loader
    def is_blocked(_header: dict[str, Any], claims: dict[str, Any]) -> bool:
        return blocklist.get(f"blocked:{claims['jti']}") is not None

    @app.get("/tokens")
    def tokens() -> dict[str, Any]:
        return {"access_token": create_access_token(request.args["user"])}

    @app.get("/me")
    @jwt_required()
    def me() -> dict[str, Any]:
        return {"id": get_jwt_identity()}

    return app


def redis() -> Any:
    """A client of the Redis that was started for the measurement."""
    from redis import Redis

    return Redis(port=int(os.environ["BENCH_REDIS_PORT"]))


KINDS: dict[str, Callable[[], Flask]] = {
    "bare": bare,
    "cloakroom": cloakroom,
    "flask-session": flask_session,
    "flask-jwt-extended": jwt_extended,
}


def make(kind: str) -> Flask:
    """The application of this kind."""
    return KINDS[kind]()
