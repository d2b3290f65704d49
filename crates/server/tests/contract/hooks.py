"""Lets schemathesis past 401 and 404: credentials, names and tokens that count.

A part of a case that is bad on purpose stays as it is; the others are given what is there. A few
cases go out as they were generated, with whatever credential the tool came up with.
"""

import atexit
import collections
import json
import os
import random

import requests
import schemathesis
from schemathesis.core.parameters import ParameterLocation

from estate import BCRYPT, NEW_PASSWORD, PASSWORD, Estate

CHANCE = random.Random(int(os.environ["CLOAKROOM_SEED"]))
ESTATE = Estate()
SEEN = collections.defaultdict(collections.Counter)
EVENT_SCHEMA = "ST108"
UNDECLARED_METHOD = "ST204"
PUBLIC = os.environ["CLOAKROOM_PUBLIC"]


def one_in(times):
    return CHANCE.randrange(times) == 0


class Credentials(requests.auth.AuthBase):
    """Sets headers on the request as it goes out; the case itself stays as it was generated."""

    def __init__(self, headers):
        self.headers = headers

    def __call__(self, request):
        for name in ("authorization", "cookie"):
            request.headers.pop(name, None)
        request.headers.update(self.headers)
        return request


def of_cookie(delivery):
    """A session's cookie with a CSRF token for it; mostly with both."""
    opened = ESTATE.open(delivery)
    pair = opened["set_cookie"][0].split(";")[0]
    headers = {"cookie": pair, "x-csrf-token": opened["csrf_token"]}
    if one_in(10):
        del headers["x-csrf-token"]
    return headers


def of_bearer():
    return {"authorization": f"Bearer {ESTATE.open('bearer')['access_token']}"}


def before_sign_in():
    """The cookie and the token of a browser that hasn't signed in yet."""
    answer = requests.get(f"{PUBLIC}/auth/csrf-token", timeout=20)
    pair = answer.headers["set-cookie"].split(";")[0]
    return {"cookie": pair, "x-csrf-token": answer.json()["csrf_token"]}


def credentials(operation):
    """What one of the operation's security requirements asks for."""
    required = CHANCE.choice(operation.definition.raw.get("security") or [{}])
    scheme = next(iter(required), None)
    if scheme == "apiKey":
        return {"authorization": f"Bearer {ESTATE.key}"}
    if scheme == "apiKeyAsPassword":
        return {"authorization": requests.auth._basic_auth_str("any", ESTATE.key)}
    if scheme == "sessionCookie":
        return of_cookie("cookie")
    if scheme == "refreshCookie":
        return of_cookie("split")
    if scheme == "accessToken":
        return of_bearer()
    return before_sign_in() if operation.path.startswith("/auth/") and one_in(2) else {}


def token():
    """A token of some kind."""
    kind = CHANCE.choice(["access_token", "refresh_token", "session_token"])
    return ESTATE.open("cookie" if kind == "session_token" else "bearer")[kind]


def refresh_token():
    return ESTATE.open("bearer")["refresh_token"]


def sid():
    if one_in(5):
        return ESTATE.ended()
    return ESTATE.open("bearer", f"subject-{ESTATE.fresh()}")["session"]["id"]


MEMBERS = {
    "login": {"identifier": lambda: ESTATE.user["identifier"], "password": lambda: PASSWORD},
    "register": {"identifier": lambda: f"{ESTATE.fresh()}@example.com",
                 "password": lambda: PASSWORD},
    "reauthenticate": {"password": lambda: PASSWORD},
    "changePassword": {
        "current_password": lambda: ESTATE.reset_token() if one_in(3) else PASSWORD,
        "new_password": lambda: NEW_PASSWORD,
    },
    "refresh": {"refresh_token": refresh_token},
    "logout": {"refresh_token": refresh_token},
    "introspect": {"token": token},
    "revokeToken": {"token": token},
    "token": {"refresh_token": refresh_token},
    "verifyToken": {"token": token},
    "denyToken": {"token": lambda: ESTATE.open("bearer")["access_token"]},
    "openSession": {"replaces": refresh_token, "subject": ESTATE.subject},
    "touch": {"sids": lambda: [sid()], "handles": lambda: [ESTATE.handle()]},
    "createUser": {"identifier": lambda: f"{ESTATE.fresh()}@example.com",
                   "password": lambda: PASSWORD, "password_hash": lambda: BCRYPT},
    "changeUser": {"password": lambda: NEW_PASSWORD},
}
SEGMENTS = {
    "sid": sid,
    "subject": ESTATE.subject,
    "handle": ESTATE.handle,
    "kid": lambda: CHANCE.choice(ESTATE.kids()),
    "policy": lambda: CHANCE.choice(["default", "admin", "recent"]),
}
LISTS = {
    "listSessions": "/admin/v1/sessions",
    "listUsers": "/admin/v1/users",
    "listApiKeys": "/admin/v1/api-keys",
    "listEvents": "/admin/v1/events",
}


def fill_path(case):
    for name in case.path_parameters or {}:
        if one_in(6):
            continue
        if name == "id":
            keys = case.path.startswith("/admin/v1/api-keys")
            case.path_parameters[name] = ESTATE.api_key() if keys else ESTATE.add_user()["id"]
        elif name == "sid" and case.path.startswith("/auth/"):
            case.path_parameters[name] = ESTATE.open("bearer")["session"]["id"]
        else:
            case.path_parameters[name] = SEGMENTS[name]()


def fill_body(case, label):
    for name, made in MEMBERS.get(label, {}).items():
        if name in case.body and not one_in(4):
            case.body[name] = made()


def fill_query(case, label):
    if "after" in (case.query or {}) and label in LISTS and not one_in(3):
        case.query["after"] = ESTATE.cursor(LISTS[label]) or ""


def fill_version(case):
    if "If-Match" in (case.headers or {}) and one_in(2):
        version = ESTATE.etag(case.formatted_path)
        if version:
            case.headers["If-Match"] = version


def is_good(case, location):
    return case.meta is not None and not case.meta.is_negative_at(location)


def lacks_credentials(case):
    """Whether a case is about its own bad or missing credential."""
    about = getattr(case.meta.phase.data, "parameter", None) if case.meta else None
    mutations = getattr(case.meta.phase.data, "mutations", None) or () if case.meta else ()
    names = {about, *(mutation.parameter for mutation in mutations)}
    names = {name.lower() for name in names if name}
    return bool(names & {"authorization", "session", "refresh", "__host-session"})


@schemathesis.hook
def before_call(context, case, kwargs):
    label = case.operation.definition.raw.get("operationId")
    if is_good(case, ParameterLocation.PATH):
        fill_path(case)
    if is_good(case, ParameterLocation.BODY) and isinstance(case.body, dict):
        fill_body(case, label)
    if is_good(case, ParameterLocation.QUERY):
        fill_query(case, label)
    if is_good(case, ParameterLocation.HEADER):
        fill_version(case)
    if not one_in(12) and not lacks_credentials(case):
        kwargs["auth"] = Credentials(credentials(case.operation))


@schemathesis.hook
def after_call(context, case, response):
    label = case.operation.definition.raw.get("operationId")
    SEEN[label][response.status_code] += 1
    if label == "changePassword" and response.status_code == 200:
        ESTATE.restore_password()


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drops what OpenAPI 3.1 has no words for."""
    is_stream = case.path.endswith("/stream")
    if failure.code == EVENT_SCHEMA and is_stream:
        # A stream is described as the text that it is; the tool takes that for one event's schema.
        return False
    # Forward authentication takes any method; the document names those that it can.
    return not (failure.code == UNDECLARED_METHOD and case.path.startswith("/auth/verify"))


@atexit.register
def tell():
    """Writes down how often each operation was answered with which status."""
    with open(os.environ["CLOAKROOM_SEEN"], "w", encoding="utf-8") as file:
        json.dump(SEEN, file, indent=1, sort_keys=True)
