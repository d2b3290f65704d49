"""The authority's own verdicts, in `sdk/vectors`."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from cloakroom_flask import CloakroomError, _csrf
from cloakroom_flask import _errors as errors
from cloakroom_flask._authority import _REFRESH_REFUSALS, _refresh_refusal
from cloakroom_flask._extension import cookie_of
from cloakroom_flask._revocations import Listener, Revocations
from cloakroom_flask._state import RequestState
from cloakroom_flask._tokens import TokenVerifier
from cloakroom_flask._wire import Reply

FOLDER = Path(__file__).resolve().parents[2] / "vectors"


def vectors(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


TOKENS, CSRF = vectors("tokens.json"), vectors("csrf.json")


class Transport:
    """Hands out the key set."""

    def ask(self, _method: str, path: str) -> Reply:
        found = TOKENS["jwks"] if "jwks" in path else {"issuer": TOKENS["issuer"]}
        return Reply(200, {}, json.dumps(found).encode())


class Verifier:
    """As much of an authority as judging a token needs."""

    def __init__(self) -> None:
        revocations = Revocations(Listener())
        transport: Any = Transport()
        self._tokens = TokenVerifier(transport, lambda: revocations, TOKENS["audience"], None)

    def access(self, token: str) -> dict[str, Any]:
        claims = self._tokens.verify(token)
        assert claims is not None, "it would ask"
        return claims

    def note_use(self, _sid: str) -> None:
        """Nobody is told."""


@pytest.mark.parametrize("case", TOKENS["cases"], ids=lambda case: case["name"])
def test_access_tokens(case: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: float(TOKENS["now"]))
    verifier: Any = Verifier()
    request = Request(EnvironBuilder().get_environ())
    for _ in range(2):
        state = RequestState(verifier, request, 0)
        state.by_token(case["token"])
        if case["verdict"] == "valid":
            claims = state.require()
            assert claims.subject == TOKENS["claims"]["sub"]
            assert claims.claims == {"role": TOKENS["claims"]["role"]}
        else:
            assert state.refusal is not None
            assert state.refusal.error_code == case["verdict"]


@pytest.mark.parametrize("case", CSRF["tokens"], ids=lambda case: case["name"])
def test_csrf_tokens(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _csrf.is_token_of(CSRF["key"], case["token"]) is case["passes"]
    chosen = base64.urlsafe_b64decode(CSRF["random"] + "==")
    monkeypatch.setattr(_csrf.secrets, "token_bytes", lambda _: chosen)
    assert _csrf.make_token(CSRF["key"]) == CSRF["made"]


@pytest.mark.parametrize("case", CSRF["origins"], ids=str)
def test_origins(case: dict[str, Any]) -> None:
    builder = EnvironBuilder(method="POST", headers=case["headers"])
    request = Request({**builder.get_environ(), "REQUEST_METHOD": case["method"]})
    why = None
    # What WSGI hands over is what was sent; werkzeug alone writes it in capitals.
    if not _csrf.is_safe(case["method"]):
        why = _csrf.origin_fault(request, CSRF["own_origin"], CSRF["allowed_origins"])
    step = None if case["refused"] is None else f"step {case['refused']}"
    assert (None if why is None else why[:6]) == step


@pytest.mark.parametrize("case", vectors("cookies.json")["cases"], ids=str)
def test_cookies(case: dict[str, Any]) -> None:
    environ = {**EnvironBuilder().get_environ(), "HTTP_COOKIE": case["cookie"]}
    found = cookie_of(Request(environ), case["name"])
    wanted = None if case["session"] == "several" else case["session"]
    assert found == wanted or (wanted is None and not str(found).startswith("cks_"))


def test_refusals_in_the_authoritys_words() -> None:
    words = {each["detail"]: each["code"] for each in vectors("refusals.json")["refusals"]}
    for detail, code in _REFRESH_REFUSALS.items():
        assert words[detail] == code
    ours: list[CloakroomError] = [
        errors.credentials_required(),
        errors.token_expired(),
        errors.token_invalid(),
        errors.token_wrong_type(),
        errors.session_ended(None),
        errors.insufficient_claims(),
    ]
    for error in ours:
        assert words[error.detail] == error.error_code


def test_a_refused_refresh_is_told_by_its_code_whatever_the_words() -> None:
    def refused(**found: str) -> CloakroomError:
        return _refresh_refusal(
            Reply(400, {}, json.dumps({"error": "invalid_grant", **found}).encode())
        )

    by_code = refused(error_description="x", code="session_ended", reason="signed_out")
    assert (by_code.error_code, by_code.reason, by_code.code) == (
        "session_ended",
        "signed_out",
        401,
    )
    by_words = refused(error_description="the token has expired")
    assert (by_words.error_code, by_words.code) == ("token_expired", 401)
    assert refused().error_code == "token_invalid"
