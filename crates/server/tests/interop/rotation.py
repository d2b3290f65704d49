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
# Over before rotation.mjs revokes a key at its end.
UNTIL = time.time() + float(os.environ["SECONDS_LONG"]) - 200
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


def main():
    identifier = "rotation-python@example.com"
    post(f"{ADMIN}/admin/v1/users", {"identifier": identifier, "password": PASSWORD}, KEY)
    login = {"identifier": identifier, "password": PASSWORD, "delivery": "bearer"}
    tokens = post(f"{PUBLIC}/auth/login", login)
    verified, refused, kids = 0, [], set()
    while time.time() < UNTIL:
        text = tokens["access_token"]
        kids.add(jwt.get_unverified_header(text)["kid"])
        try:
            key = keys.get_signing_key_from_jwt(text)
            jwt.decode(text, key, algorithms=["EdDSA"], audience="cloakroom", issuer=PUBLIC)
            verified += 1
        except (jwt.PyJWTError, urllib.error.URLError) as error:
            refused.append(str(error))
        # Not `time.sleep`, which an accelerated clock confuses.
        select.select([], [], [], 0.02)
        tokens = post(f"{PUBLIC}/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    print(f"PyJWT: {verified} verified, {len(kids)} keys")
    for why in refused[:5]:
        print(f"refused: {why}")
    checks = [not refused, len(kids) >= 3, verified > 100]
    print(f"{sum(checks)} passed, {len(checks) - sum(checks)} failed")


main()
