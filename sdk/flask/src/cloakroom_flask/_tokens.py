"""Access tokens, judged here: signature, type, issuer, audience, times, key, revocation."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jwt
from jwt import PyJWK

from . import _errors
from ._bounded import Bounded
from ._errors import CloakroomError
from ._http import Transport
from ._revocations import Revocations

#: The claims of an access token (RFC 9068).
AccessClaims = dict[str, Any]

ALGORITHMS = ("EdDSA", "ES256", "RS256")
#: What clocks may differ by, in seconds.
LEEWAY = 5
#: Whom the assertions are for that gateways hand to upstreams, unless the authority is told
#: otherwise: they are no access tokens.
GATEWAY_AUDIENCE = "upstream"
#: Claims that every access token has; all others are the session's own.
REGISTERED = frozenset(
    "iss sub aud exp nbf iat jti sid auth_time amr acr epoch act cnf scope client_id".split()
)

_NUMBERS = ("exp", "nbf", "iat", "auth_time", "epoch")
_TEXTS = ("iss", "sub", "jti", "sid")
_REQUIRED = [*_NUMBERS, *_TEXTS, "aud"]
#: They are judged at every use, after everything else.
_TIMES_ARE_OURS = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
_OPTIONS: Any = {"require": _REQUIRED, **_TIMES_ARE_OURS}
_TOKEN_MAX = 16 * 1024
_KEYS_MAX = 64
_GENUINE_MAX = 10_000
#: Unknown keys are asked for at most this often, in seconds.
_REFETCH_SECONDS = 60.0
#: Keys are looked at anew after this long, whatever the feed says: the key set's own `max-age`.
_KEYS_SECONDS = 300.0
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class _Key(NamedTuple):
    """A public key, and the one algorithm that it is for."""

    algorithm: str
    public: Any


class _Genuine(NamedTuple):
    """The claims of a token that was found genuine, and the key by which it was."""

    claims: AccessClaims
    kid: str


class TokenVerifier:
    """Verifies access tokens with the authority's public keys and the revocation feed."""

    def __init__(
        self,
        transport: Transport,
        revocations: Callable[[], Revocations],
        audience: str,
        issuer: str | None,
    ) -> None:
        self._transport = transport
        self._revocations = revocations
        self._audience = audience
        self._fixed_issuer = issuer
        self.reset()

    def reset(self) -> None:
        """Begins anew, in a process that nothing was told to."""
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._keys: dict[str, _Key] = {}
        self._issuer = self._fixed_issuer
        self._fetched_at = float("-inf")
        # Counts what was told of keys: an answer to a question of before is too old.
        self._generation = 0
        self._genuine: Bounded[bytes, _Genuine] = Bounded(_GENUINE_MAX)

    def verify(self, token: str) -> AccessClaims | None:
        """The claims, or its refusal; ``None``: only the authority can tell (HS256)."""
        # By all its bytes: a verdict about one token is none about another.
        digest = hashlib.sha256(token.encode()).digest()
        known = self._genuine.get(digest)
        if known is None:
            known = self._open(token)
            if known is None:
                return None
            self._genuine.put(digest, known)
        claims = known.claims
        # At each use: what was found genuine by a key is nothing once the key is gone, also where
        # that was told while it was judged.
        if self._key(known.kid) is None:
            raise _errors.token_invalid()
        now = time.time()
        if claims["nbf"] > now + LEEWAY or claims["iat"] > now + LEEWAY:
            raise _errors.token_invalid()
        if now >= claims["exp"] + LEEWAY:
            raise _errors.token_expired()
        against = self._revocations().against(claims)
        if against is not None:
            raise _refusal(against.error_code, against.reason)
        return claims

    def unverified(self, token: str) -> AccessClaims:
        """What a token says that the authority has just found good."""
        return self._parts(token)[1]

    def key_changed(self, kid: str, state: str) -> None:
        """A key came or went: what it signed is looked at afresh, and the key set is too."""
        with self._telling:
            self._generation += 1
            if state in ("revoked", "removed"):
                self._keys.pop(kid, None)
                self._genuine.clear()
            self._fetched_at = float("-inf")

    def forget_keys(self) -> None:
        """Keys may have gone without a word: none is known until they are fetched."""
        with self._telling:
            self._generation += 1
            self._keys = {}
            self._genuine.clear()
            self._fetched_at = float("-inf")

    def _open(self, token: str) -> _Genuine | None:
        header, claims = self._parts(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in (*ALGORITHMS, "HS256") or not isinstance(kid, str):
            raise _errors.token_invalid()
        key = self._key(kid)
        # A shared secret is the authority's and its one old backend's: those are asked about.
        if key is None and algorithm == "HS256":
            return None
        # The algorithm is the key's; the token's own word only has to agree.
        if key is None or key.algorithm != algorithm:
            raise _errors.token_invalid()
        self._judge(token, key)
        # Only now, as at the authority: who can't sign learns nothing about types.
        if header["typ"].lower() not in ("at+jwt", "application/at+jwt"):
            raise _errors.token_wrong_type()
        return _Genuine(claims, kid)

    def _parts(self, token: str) -> tuple[dict[str, Any], AccessClaims]:
        if len(token) > _TOKEN_MAX or not _COMPACT.fullmatch(token):
            raise _errors.token_invalid()
        header_part, claims_part, signature = token.split(".")
        header, claims = _object(header_part), _object(claims_part)
        _decoded(signature)
        kind = header.get("typ")
        if not set(header) <= {"alg", "kid", "typ"} or not isinstance(kind, str):
            raise _errors.token_invalid()
        return header, claims

    def _judge(self, token: str, key: _Key) -> None:
        try:
            claims = jwt.decode(
                token,
                key.public,
                algorithms=[key.algorithm],
                audience=[self._audience, GATEWAY_AUDIENCE],
                issuer=self._issuer,
                options=_OPTIONS,
            )
        except jwt.PyJWTError as fault:
            raise _errors.token_invalid() from fault
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if GATEWAY_AUDIENCE in audience:
            # Genuine, but for upstreams: with one of them nobody may act as its user here.
            raise _errors.token_wrong_type()
        numbers = all(type(claims[name]) is int for name in _NUMBERS)
        if not numbers or not all(isinstance(claims[name], str) for name in _TEXTS):
            raise _errors.token_invalid()

    def _key(self, kid: str) -> _Key | None:
        # Whatever the key set says: a node that lags behind may still publish it.
        if self._revocations().is_key_gone(kid):
            return None
        known = self._keys.get(kid)
        if known is not None:
            if self._age() >= _KEYS_SECONDS:
                self._renew()
        elif self._age() >= _REFETCH_SECONDS:
            with self._lock:
                if self._age() >= _REFETCH_SECONDS:
                    self._fetch()
        return None if self._revocations().is_key_gone(kid) else self._keys.get(kid)

    def _age(self) -> float:
        return time.monotonic() - self._fetched_at

    def _renew(self) -> None:
        """Looks for new keys, of which the feed would have told; whoever is about it is enough."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._age() >= _KEYS_SECONDS:
                self._fetch()
        except CloakroomError:
            self._fetched_at = time.monotonic() - _KEYS_SECONDS + _REFETCH_SECONDS
        finally:
            self._lock.release()

    def _fetch(self) -> None:
        while True:
            generation = self._generation
            keys, issuer = self._ask()
            with self._telling:
                # What was asked before something was told may be from before.
                if generation == self._generation:
                    self._keys, self._issuer = keys, issuer
                    self._fetched_at = time.monotonic()
                    return

    def _ask(self) -> tuple[dict[str, _Key], str | None]:
        found = self._transport.ask("GET", "/.well-known/jwks.json").json()
        issuer = self._fixed_issuer
        if issuer is None:
            metadata = self._transport.ask("GET", "/.well-known/oauth-authorization-server")
            issuer = metadata.json()["issuer"]
        keys: dict[str, _Key] = {}
        for jwk in found["keys"][:_KEYS_MAX]:
            if jwk.get("alg") in ALGORITHMS and isinstance(jwk.get("kid"), str):
                keys[jwk["kid"]] = _Key(jwk["alg"], PyJWK.from_dict(jwk).key)
        return keys, issuer


def actor_of(claims: AccessClaims) -> str | None:
    """Who acts as the token's subject (RFC 8693 section 4.1)."""
    act = claims.get("act")
    actor = act.get("sub") if isinstance(act, dict) else None
    return actor if isinstance(actor, str) else None


def own_claims(claims: AccessClaims) -> dict[str, Any]:
    """The session's own claims: all that aren't registered."""
    return {name: value for name, value in claims.items() if name not in REGISTERED}


def _refusal(error_code: str, reason: str | None) -> _errors.Refused:
    if error_code == "session_ended":
        return _errors.session_ended(reason)
    return _errors.token_expired() if error_code == "token_expired" else _errors.token_invalid()


def _decoded(part: str) -> bytes:
    padded = part + "=" * (-len(part) % 4)
    try:
        raw = base64.urlsafe_b64decode(padded)
    except ValueError as fault:
        raise _errors.token_invalid() from fault
    # Two spellings of one token would be two entries in a list of denied ones.
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != part.encode():
        raise _errors.token_invalid()
    return raw


def _object(part: str) -> dict[str, Any]:
    try:
        found = json.loads(_decoded(part), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as fault:
        raise _errors.token_invalid() from fault
    if not isinstance(found, dict):
        raise _errors.token_invalid()
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers differ in which of two members counts.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is doubled")
    return found
