"""What a fuzzed authority holds: sessions, users, keys and handles, made over its admin listener.

A case that asks for something at random meets 404 and nothing else, so cases get real names and
real credentials from here. Each gets its own: one that ends a session takes it from no other.
"""

import base64
import hashlib
import json
import http.client
import os
import urllib.parse

PASSWORD = "seven quiet lamps at noon"
NEW_PASSWORD = "nine loud lamps at dusk"
BCRYPT = "$2b$04$abcdefghijklmnopqrstuu5AoR1ESKtJUGVIRyXgKnEzRO0L7bG4K"


class Estate:
    """The authority under test, as its operator has it."""

    def __init__(self):
        self.key = os.environ["CLOAKROOM_API_KEY"]
        self.place = urllib.parse.urlsplit(os.environ["CLOAKROOM_ADMIN"]).netloc
        self.connection = http.client.HTTPConnection(self.place, timeout=20)
        self.count = 0
        self.user = self.add_user(password=PASSWORD)

    def ask(self, method, path, body=None, headers=()):
        """Asks the admin listener; the answer's status, headers and JSON."""
        headers = {"authorization": f"Bearer {self.key}", **dict(headers)}
        text = None
        if body is not None:
            text = json.dumps(body)
            headers["content-type"] = "application/json"
        try:
            self.connection.request(method, path, text, headers)
            answer = self.connection.getresponse()
        except (http.client.HTTPException, OSError):
            # It had been closed meanwhile.
            self.connection.close()
            self.connection.request(method, path, text, headers)
            answer = self.connection.getresponse()
        read = answer.read()
        return answer.status, answer.headers, json.loads(read) if read else None

    def done(self, method, path, body=None):
        """The JSON of an answer that must be a success."""
        status, _, said = self.ask(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {said}")
        return said

    def fresh(self):
        """A name that wasn't there before."""
        self.count += 1
        return f"{os.getpid()}-{self.count}"

    def add_user(self, password=None):
        """A new user; only with a password where it is asked for, since hashing takes its time."""
        body = {"identifier": f"{self.fresh()}@example.com", "claims": {"role": "user"}}
        if password is not None:
            body["password"] = password
        return self.done("POST", "/admin/v1/users", body)["user"]

    def restore_password(self):
        """Gives the user back the password that a case has changed."""
        self.done("PATCH", f"/admin/v1/users/{self.user['id']}", {"password": PASSWORD})

    def reset_token(self):
        """A one-time token in place of the user's password."""
        return self.done("POST", f"/admin/v1/users/{self.user['id']}/reset")["token"]

    def open(self, delivery, subject=None):
        """A new session with its credentials; the user's, unless it is to be somebody else's."""
        body = {"subject": subject or self.user["id"], "delivery": delivery, "amr": ["pwd"]}
        return self.done("POST", "/admin/v1/sessions", body)

    def subject(self):
        """A subject with a session."""
        name = f"subject-{self.fresh()}"
        self.open("bearer", name)
        return name

    def ended(self):
        """The id of a session that is over."""
        sid = self.open("cookie", f"subject-{self.fresh()}")["session"]["id"]
        self.done("DELETE", f"/admin/v1/sessions/{sid}")
        return sid

    def handle(self):
        """A handle with a session under it."""
        digest = hashlib.sha256(self.fresh().encode()).digest()
        name = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        self.done("PUT", f"/admin/v1/handles/{name}", {"data": {"cart": [7]}})
        return name

    def api_key(self):
        """The id of a new API key."""
        body = {"name": "fuzzed", "scopes": ["events"]}
        return self.done("POST", "/admin/v1/api-keys", body)["api_key"]["id"]

    def kids(self):
        """The ids of all signing keys."""
        return [key["kid"] for key in self.done("GET", "/admin/v1/keys")["keys"]]

    def etag(self, path):
        """The version of what is at a path of the admin listener."""
        return self.ask("GET", path)[1].get("etag")

    def cursor(self, path):
        """Where the second page of a listing begins."""
        return self.done("GET", f"{path}?limit=1")["next"]
