"""A protected route with Cloakroom beside the same route bare, and beside what one had before.

    CLOAKROOM_BIN=target/release/cloakroom python bench/backends.py

Requests are made in the process, so that no server's cost hides the difference. Ours and the
reference's rounds are made in turn; one JSON object a line in the form of `cargo xtask bench`.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask, session
from werkzeug.test import EnvironBuilder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from cloakroom_flask import Cloakroom, current_user, login_required, login_user
from cloakroom_flask import generate_tokens as tokens_for
from conftest import Server, free_port, wait_until, wait_until_fresh

ROUNDS = 9
ROUND_SECONDS = 0.4
SECRET = "a secret of 32 bytes at least, for this benchmark alone"

Call = Callable[[], None]


def call(app: Flask, path: str, headers: dict[str, str]) -> Call:
    """One request of `path`, which must succeed."""
    environ = EnvironBuilder(path=path, headers=headers).get_environ()

    def request() -> None:
        found: list[str] = []
        answer = app.wsgi_app(
            dict(environ), lambda status, headers, exc_info=None: found.append(status)
        )
        b"".join(answer)
        answer.close()
        if found != ["200 OK"]:
            raise AssertionError(f"{path}: {found}")

    return request


def rate(request: Call) -> float:
    """Requests in a second."""
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < ROUND_SECONDS:
        for _ in range(20):
            request()
        count += 20
    return count / took


def pair(name: str, ours: Call, reference: Call, aim: float | None) -> dict[str, Any]:
    """Both in turn, and the ratio of each turn."""
    for request in (ours, reference):
        rate(request)
    rounds = [(rate(ours), rate(reference)) for _ in range(ROUNDS)]
    ratios = [one / other for one, other in rounds]
    ratio = statistics.median(ratios)
    return {
        "name": name,
        "unit": "requests/s",
        "ours": round(statistics.median(one for one, _ in rounds)),
        "reference": round(statistics.median(other for _, other in rounds)),
        "ratio": round(ratio, 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "aim": None if aim is None else f"ratio >= {aim}",
        "met": None if aim is None else ratio >= aim,
    }


def bare() -> Flask:
    """The route without anything."""
    app = Flask("bare")
    app.get("/me")(lambda: {"id": "ada"})
    return app


def with_cloakroom(server: Server) -> tuple[Flask, dict[str, str], dict[str, str]]:
    """The application, a cookie, and a bearer token."""
    app = Flask("ours")
    app.config.update(CLOAKROOM_URL=server.url, CLOAKROOM_API_KEY=server.key)
    Cloakroom(app)

    @app.get("/login")
    def login() -> dict[str, Any]:
        login_user("ada")
        session["cart"] = {"apple": 2}
        return {}

    @app.get("/tokens")
    def tokens() -> dict[str, Any]:
        return tokens_for("ada")

    @app.get("/me")
    @login_required
    def me() -> dict[str, Any]:
        return {"id": current_user.id}

    @app.get("/cart")
    @login_required
    def cart() -> dict[str, Any]:
        return {"id": current_user.id, "cart": session["cart"]}

    client = app.test_client()
    client.get("/login")
    cookie = f"session={client.get_cookie('session').value}"
    token = client.get("/tokens").json["access_token"]
    wait_until_fresh(app)
    return app, {"Cookie": cookie}, {"Authorization": f"Bearer {token}"}


def with_flask_session(redis: Any) -> tuple[Flask, dict[str, str]]:
    """The application that Flask-Session's users have."""
    from flask_session import Session

    app = Flask("flask-session")
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis)
    Session(app)

    @app.get("/login")
    def login() -> dict[str, Any]:
        session["user_id"] = "ada"
        session["cart"] = {"apple": 2}
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

    client = app.test_client()
    client.get("/login")
    return app, {"Cookie": f"session={client.get_cookie('session').value}"}


def with_jwt_extended(redis: Any) -> tuple[Flask, dict[str, str]]:
    """The application that Flask-JWT-Extended's users have, with its blocklist in Redis."""
    from flask_jwt_extended import (
        JWTManager,
        create_access_token,
        get_jwt_identity,
        jwt_required,
    )

    app = Flask("jwt-extended")
    app.config["JWT_SECRET_KEY"] = SECRET
    manager = JWTManager(app)

    @manager.token_in_blocklist_loader
    def is_blocked(_header: dict[str, Any], claims: dict[str, Any]) -> bool:
        return redis.get(f"blocked:{claims['jti']}") is not None

    @app.get("/me")
    @jwt_required()
    def me() -> dict[str, Any]:
        return {"id": get_jwt_identity()}

    with app.app_context():
        token = create_access_token("ada")
    return app, {"Authorization": f"Bearer {token}"}


def run(server: Server, redis: Any) -> None:
    """Measures, and prints a line for each pair."""
    ours, cookie, bearer = with_cloakroom(server)
    by_cookie, by_token = call(ours, "/me", cookie), call(ours, "/me", bearer)
    nothing = call(bare(), "/me", {})
    peer, peers_cookie = with_flask_session(redis)
    jwt_peer, peers_token = with_jwt_extended(redis)
    for row in (
        lambda: pair("flask cookie, beside bare", by_cookie, nothing, None),
        lambda: pair("flask bearer, beside bare", by_token, nothing, None),
        lambda: pair(
            "flask cookie, beside Flask-Session",
            by_cookie,
            call(peer, "/me", peers_cookie),
            1.0,
        ),
        lambda: pair(
            "flask session data, beside Flask-Session",
            call(ours, "/cart", cookie),
            call(peer, "/cart", peers_cookie),
            1.0,
        ),
        lambda: pair(
            "flask bearer, beside Flask-JWT-Extended",
            by_token,
            call(jwt_peer, "/me", peers_token),
            1.0,
        ),
    ):
        print(json.dumps(row()), flush=True)


def main() -> None:
    """Starts what is measured against, and stops it."""
    if shutil.which("redis-server") is None:
        sys.exit("bench: there is no redis-server")
    from redis import ConnectionError as NotThere
    from redis import Redis

    port = free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
    redis = Redis(port=port)

    def answers() -> bool:
        try:
            return bool(redis.ping())
        except NotThere:
            return False

    server = Server()
    try:
        wait_until(answers, "Redis")
        run(server, redis)
    finally:
        server.remove()
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
