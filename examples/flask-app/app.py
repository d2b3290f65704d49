"""A small shop: users in SQLite, their sessions and tokens in Cloakroom."""

import os
import sqlite3
from contextlib import suppress
from uuid import uuid4

from cloakroom_flask import (
    Cloakroom,
    claims_required,
    csrf_token,
    current_user,
    epoch_of,
    generate_tokens,
    is_local_path,
    login_required,
    login_user,
    logout_everywhere,
    logout_user,
    rate_limit,
    refresh_access_token,
)
from flask import Flask, g, redirect, render_template, request, session
from werkzeug.security import check_password_hash, generate_password_hash

app = Flask(__name__)
Cloakroom(app, login_view="login_page")  # CLOAKROOM_URL, CLOAKROOM_API_KEY

DATABASE = os.environ.get("DATABASE", "shop.sqlite")
TOKENS = ("access_token", "refresh_token", "expires_in", "token_type")
# A password is checked whether or not there is such a user: the time tells nothing.
NOBODY = generate_password_hash("nobody's password")


# ---- users ----


def database():
    if "database" not in g:
        g.database = sqlite3.connect(DATABASE)
        g.database.row_factory = sqlite3.Row
    return g.database


@app.teardown_appcontext
def close(_error):
    if "database" in g:
        g.database.close()


def check_user(email, password):
    query = "SELECT id, email, role, password FROM users WHERE email = ?"
    row = database().execute(query, (str(email),)).fetchone()
    good = check_password_hash(row["password"] if row else NOBODY, str(password))
    return {name: row[name] for name in ("id", "email", "role")} if row and good else None


def id_of(email):
    row = database().execute("SELECT id FROM users WHERE email = ?", (str(email),)).fetchone()
    return row["id"] if row else None


def add_user(connection, email, password, role="user"):
    user = {"id": f"u{uuid4().hex}", "email": email, "role": role}
    row = (*user.values(), generate_password_hash(password))
    connection.execute("INSERT INTO users VALUES (?, ?, ?, ?)", row)
    return user


@app.post("/sign-up")
def sign_up():
    body = request.get_json()
    email, password = body.get("email"), body.get("password")
    if not email or not password:
        return {"error": "Email and password required"}, 400
    try:
        with database() as connection:
            return add_user(connection, email, password), 201
    except sqlite3.IntegrityError:
        return {"error": "Email already registered"}, 409


# ---- signing in and out ----


@app.get("/login")
def login_page():
    return render_template("login.html", return_to=request.args.get("return_to"))


@app.post("/login")
def login():
    body = request.get_json() if request.is_json else request.form
    # A "sign out everywhere" while the password is checked wins.
    epoch = epoch_of(id_of(body.get("email")) or "nobody")
    user = check_user(body.get("email"), body.get("password"))
    if user is None and request.is_json:
        return {"error": "Invalid credentials"}, 401
    return_to = body.get("return_to")
    if user is None:
        error = "Invalid credentials"
        return render_template("login.html", return_to=return_to, error=error), 401
    subject = user.pop("id")
    if request.is_json:
        return answer(generate_tokens(subject, user, amr=["pwd"], epoch=epoch))
    login_user(subject, claims=user, amr=["pwd"], epoch=epoch)
    return redirect(return_to if is_local_path(return_to) else "/account", 303)


@app.post("/refresh")
@app.post("/api/auth/refresh")
def refresh():
    token = request.get_json().get("refresh_token")
    if not token:
        return {"error": "Refresh token required"}, 400
    return answer(refresh_access_token(token))


@app.post("/logout")
def logout_form():
    logout_user()
    return redirect("/", 303)


@app.post("/api/auth/logout")
@login_required
def logout():
    logout_user()
    return "", 204


@app.post("/api/auth/logout-everywhere")
@login_required
def everywhere():
    return {"revoked": logout_everywhere()}


@app.get("/csrf-token")
def token():
    return {"csrf_token": csrf_token()}


def answer(tokens):
    return {name: tokens[name] for name in TOKENS}


# ---- what needs a sign-in ----


@app.get("/account")
@login_required
def account():
    return render_template("account.html")


@app.get("/api/me")
@login_required
def me():
    claims = current_user.claims
    return {"id": current_user.id, "email": claims["email"], "role": claims["role"]}


@app.get("/api/admin")
@claims_required(role="admin")
def admin():
    return {"ok": True}


@app.get("/api/limited")
@rate_limit("5/1m")
@login_required
def limited():
    return {"ok": True}


# ---- what every visitor has ----


@app.get("/")
def home():
    return render_template("home.html")


@app.get("/api/cart")
def cart():
    return {"cart": session.get("cart", {})}


@app.post("/api/cart")
def change_cart():
    body = request.get_json()
    found = {**session.get("cart", {}), str(body["item"]): int(body["quantity"])}
    session["cart"] = {item: count for item, count in found.items() if count > 0}
    return {"cart": session["cart"]}


with sqlite3.connect(DATABASE) as opened:
    opened.execute(
        "CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, email TEXT UNIQUE NOT NULL, "
        "role TEXT NOT NULL, password TEXT NOT NULL)"
    )
    # Who runs the shop says who its administrator is, and no address that somebody signs up with.
    admin = os.environ.get("ADMIN_EMAIL"), os.environ.get("ADMIN_PASSWORD")
    if all(admin):
        with suppress(sqlite3.IntegrityError):  # It is there already.
            add_user(opened, *admin, role="admin")

if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), threaded=True)
