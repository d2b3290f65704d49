"""Judges the access tokens of a running authority with PyJWT, and tries forgeries made by it.

The authority's addresses, an API key and its algorithm come from the environment; the last line is
`N passed, N failed`.
"""

import json
import os
import sys
import urllib.error
import urllib.request

import jwt

PUBLIC = os.environ["CLOAKROOM_PUBLIC"]
ADMIN = os.environ["CLOAKROOM_ADMIN"]
API_KEY = os.environ["CLOAKROOM_API_KEY"]
ALGORITHM = os.environ["CLOAKROOM_ALGORITHM"]
SECRET = os.environ["CLOAKROOM_SECRET"]
SYMMETRIC = ALGORITHM == "HS256"
PASSWORD = "correct horse battery staple"
REQUIRED = ["iss", "aud", "sub", "exp", "iat", "jti", "sid"]

# An authority on this machine is never behind a proxy.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(url, body=None, bearer=None):
    """The status, headers and JSON body of a request: POST where there is a body."""
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if bearer is not None:
        request.add_header("Authorization", f"Bearer {bearer}")
    try:
        answer = OPENER.open(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        text = answer.read()
        return answer.status, answer.headers, json.loads(text) if text else None


def sign_in():
    identifier = f"pyjwt-{ALGORITHM}@example.com".lower()
    user = {"identifier": identifier, "password": PASSWORD, "claims": {"role": "user"}}
    status, _, body = call(f"{ADMIN}/admin/v1/users", user, API_KEY)
    assert status == 201, f"making the user answered {status} {body}"
    credentials = {"identifier": identifier, "password": PASSWORD, "delivery": "bearer"}
    status, _, body = call(f"{PUBLIC}/auth/login", credentials)
    assert status == 200, f"the sign-in answered {status} {body}"
    return body["access_token"]


def status_of(token):
    return call(f"{PUBLIC}/auth/session", bearer=token)[0]


def decode(token, audience="cloakroom"):
    key = SECRET
    if not SYMMETRIC:
        key = jwt.PyJWKClient(f"{PUBLIC}/.well-known/jwks.json").get_signing_key_from_jwt(token).key
    return jwt.decode(
        token,
        key,
        algorithms=[ALGORITHM],
        audience=audience,
        issuer=PUBLIC,
        options={"require": REQUIRED},
    )


def forge(token, key=SECRET, algorithm="HS256", header=None, **changes):
    """The token's claims with some changed, or left out where the change is None."""
    claims = {**jwt.decode(token, options={"verify_signature": False}), **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    original = jwt.get_unverified_header(token)
    headers = {"kid": original["kid"], "typ": original["typ"], **(header or {})}
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


def live_token_is_good(token):
    claims = decode(token)
    assert claims["role"] == "user", claims
    assert claims["amr"] == ["pwd"], claims
    assert status_of(token) == 200


def another_audience_is_refused_by_pyjwt(token):
    try:
        decode(token, audience="upstream")
    except jwt.InvalidAudienceError:
        return
    raise AssertionError("PyJWT took it")


def assertion_is_good_upstream_and_refused_here(token):
    status, headers, _ = call(f"{PUBLIC}/auth/verify", bearer=token)
    assert status == 200, status
    assertion = headers["Authorization"].removeprefix("Bearer ")
    assert decode(assertion, audience="upstream")["sub"] == decode(token)["sub"]
    assert status_of(assertion) == 401


def unsigned_is_refused(token):
    assert status_of(forge(token, key=None, algorithm="none")) == 401


def strange_secret_is_refused(token):
    assert status_of(forge(token, key="another secret of thirty-two bytes!")) == 401


def minted_under_the_shared_secret_is_good(token):
    assert status_of(forge(token)) == 200


def incomplete_is_refused(token):
    taken = [name for name in REQUIRED if status_of(forge(token, **{name: None})) != 401]
    assert not taken, f"taken without {taken}"


def ill_typed_is_refused(token):
    claims = decode(token)
    changes = [
        {"exp": str(claims["exp"])},
        {"iat": True},
        {"nbf": str(claims["nbf"] + 3600)},
        {"sub": 7},
        {"aud": ["other"]},
        {"iss": claims["iss"] + "/"},
        {"sid": claims["sid"][:-1]},
        {"epoch": claims["epoch"] + 1},
    ]
    # PyJWT itself refuses to encode some ill-typed claims; those can't come from it.
    taken = []
    for change in changes:
        try:
            forged = forge(token, **change)
        except TypeError:
            continue
        if status_of(forged) != 401:
            taken.append(change)
    assert not taken, f"taken with {taken}"


def other_types_are_refused(token):
    types = ["JWT", "dpop+jwt", "at+jwt2", "text/at+jwt"]
    taken = [typ for typ in types if status_of(forge(token, header={"typ": typ})) != 401]
    assert not taken, f"taken as {taken}"


CHECKS = [
    live_token_is_good,
    another_audience_is_refused_by_pyjwt,
    assertion_is_good_upstream_and_refused_here,
    unsigned_is_refused,
    strange_secret_is_refused,
]
SYMMETRIC_CHECKS = [
    minted_under_the_shared_secret_is_good,
    incomplete_is_refused,
    ill_typed_is_refused,
    other_types_are_refused,
]


def main():
    token = sign_in()
    failed = 0
    checks = CHECKS + (SYMMETRIC_CHECKS if SYMMETRIC else [])
    for check in checks:
        try:
            check(token)
        except Exception as error:  # a check that breaks down has failed; the others still run
            failed += 1
            print(f"FAILED {ALGORITHM} {check.__name__}: {type(error).__name__}: {error}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
