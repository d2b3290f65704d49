"""Requests that another site may have sent: section 5 of the HTTP contract."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from urllib.parse import urlsplit

from flask import Request

_RANDOM_BYTES = 16
_TOKEN = re.compile(r"[A-Za-z0-9_-]{64}")
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_PORTS = {"http": 80, "https": 443}
_HEADERS = ("X-CSRF-Token", "X-CSRFToken")
_FIELD = "csrf_token"

Origin = tuple[str, str, int | None]


def make_token(csrf_key: str) -> str:
    """A token of the session with this key; another one each time."""
    chosen = secrets.token_bytes(_RANDOM_BYTES)
    return base64.urlsafe_b64encode(chosen + _tag(csrf_key, chosen)).decode()


def is_token_of(csrf_key: str, token: str) -> bool:
    """Whether the token was made for the session with this key."""
    if not _TOKEN.fullmatch(token):
        return False
    raw = base64.urlsafe_b64decode(token)
    return hmac.compare_digest(_tag(csrf_key, raw[:_RANDOM_BYTES]), raw[_RANDOM_BYTES:])


def is_safe(method: str) -> bool:
    """GET, HEAD and OPTIONS change nothing."""
    return method in _SAFE


def is_browsers(request: Request) -> bool:
    """Whether a browser may have sent it: programs send none of these."""
    names = ("Cookie", "Origin", "Sec-Fetch-Site")
    return any(name in request.headers for name in names)


def tells_origin(request: Request) -> bool:
    """Whether the request says where it came from."""
    return any(name in request.headers for name in ("Origin", "Sec-Fetch-Site", "Referer"))


def origin_fault(request: Request, own: str, allowed: Collection[str]) -> str | None:
    """Steps 2 and 3: where the request came from. Why it is refused, or nothing."""
    ours = {origin_of(own)} | {origin_of(one) for one in allowed}
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    listed = origin is not None and origin_of(origin) in {origin_of(one) for one in allowed}
    if site is not None:
        if site in ("same-origin", "none") or listed:
            return None
        return "step 2: Sec-Fetch-Site says that another site sent this"
    if origin is not None:
        # "null" is a foreign origin, not a missing one.
        known = origin_of(origin)
        return None if known and known in ours else "step 3: the Origin is not allowed"
    referer = request.headers.get("Referer")
    if referer is None:
        return None
    known = origin_of(referer, whole=False)
    return None if known and known in ours else "step 3: the Referer is not allowed"


def token_fault(request: Request, csrf_key: str) -> str | None:
    """Step 4: the token. Why it is refused, or nothing."""
    token = next((request.headers[name] for name in _HEADERS if name in request.headers), None)
    if token is None:
        token = request.form.get(_FIELD)
    if token is None:
        return "step 4: a token is required, as X-CSRF-Token or in the field csrf_token"
    return None if is_token_of(csrf_key, token) else "step 4: the token is not of this session"


def origin_of(url: str, *, whole: bool = True) -> Origin | None:
    """Scheme, host and port; with ``whole`` there must be nothing else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc or "\\" in url:
        return None
    if whole and url.rstrip("/") != f"{parts.scheme}://{parts.netloc}":
        return None
    return parts.scheme, host, port or _PORTS[parts.scheme]


def _tag(csrf_key: str, chosen: bytes) -> bytes:
    key = base64.urlsafe_b64decode(csrf_key + "=" * (-len(csrf_key) % 4))
    return hmac.new(key, chosen, hashlib.sha256).digest()
