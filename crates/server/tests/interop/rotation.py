"""Verifies tokens with PyJWT and its own ordinary caching while the signing keys are rotated.

Runs beside rotation.mjs, which asks for the rotations. The last line is `N passed, N failed`.
"""

import json
import os
import select
import time
import urllib.error
import urllib.request

import jwt

PUBLIC, ADMIN = os.environ["CLOAKROOM_PUBLIC"], os.environ["CLOAKROOM_ADMIN"]
KEY = {"authorization": f"Bearer {os.environ['CLOAKROOM_API_KEY']}"}
# Until then no key is revoked; rotation.mjs revokes the active one at its end.
UNTIL = time.time() + float(os.environ["SECONDS_LONG"]) - 200
PATIENCE = 2000
# What PyJWKClient keeps a key set for.
CACHE_SECONDS = 300
PASSWORD = "correct horse battery staple"

keys = jwt.PyJWKClient(f"{PUBLIC}/.well-known/jwks.json")


def post(url, body, headers=None):
    request = urllib.request.Request(
        url,
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", **(headers or {})},
        method="POST",
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def is_revoked(kid):
    """Whether the authority has revoked a key; not asked while none can be."""
    if time.time() < UNTIL:
        return False
    request = urllib.request.Request(f"{ADMIN}/admin/v1/keys", headers=KEY)
    with urllib.request.urlopen(request) as answer:
        listed = json.load(answer)["keys"]
    return any(key["kid"] == kid and key["state"] == "revoked" for key in listed)


def verify(text, **options):
    key = keys.get_signing_key_from_jwt(text)
    jwt.decode(
        text, key, algorithms=["EdDSA"], audience="cloakroom", issuer=PUBLIC, options=options
    )


def pause():
    # Not `time.sleep`, which an accelerated clock confuses.
    select.select([], [], [], 0.02)


def is_refused_after_the_cache(text):
    """Whether a revoked key's token, taken before, is refused once the cache has run out."""
    over = time.monotonic() + CACHE_SECONDS
    while time.monotonic() <= over:
        pause()
    try:
        verify(text, verify_exp=False)
    except jwt.PyJWKClientError:
        return True
    return False


def main():
    identifier = "rotation-python@example.com"
    post(f"{ADMIN}/admin/v1/users", {"identifier": identifier, "password": PASSWORD}, KEY)
    login = {"identifier": identifier, "password": PASSWORD, "delivery": "bearer"}
    tokens = post(f"{PUBLIC}/auth/login", login)
    verified, refused, kids, last = 0, [], set(), None
    while time.time() < UNTIL + PATIENCE:
        if last and is_revoked(jwt.get_unverified_header(last)["kid"]):
            break
        text = tokens["access_token"]
        try:
            verify(text)
            verified += 1
            kids.add(jwt.get_unverified_header(text)["kid"])
            last = text
        except (jwt.PyJWTError, urllib.error.URLError) as error:
            # The revocation may have come between.
            if not is_revoked(jwt.get_unverified_header(text)["kid"]):
                refused.append(str(error))
        pause()
        tokens = post(f"{PUBLIC}/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    print(f"PyJWT: {verified} verified, {len(kids)} keys")
    for why in refused[:5]:
        print(f"refused: {why}")
    checks = {
        "no genuine token was refused": not refused,
        "of three keys and more": len(kids) >= 3,
        "more than a hundred tokens": verified > 100,
        "a revoked key verifies nothing after the cache": is_refused_after_the_cache(last),
    }
    for name in [name for name, holds in checks.items() if not holds]:
        print(f"FAILED rotation: PyJWT: {name}")
    print(f"{sum(checks.values())} passed, {len(checks) - sum(checks.values())} failed")


main()
