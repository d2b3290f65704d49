"""What goes wrong, in the words of the authority."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException, default_exceptions
from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_TITLES = {
    "api_key_refused": "Session authority refuses the API key",
    "authority_unreachable": "Session authority unreachable",
    "credentials_required": "Sign-in required",
    "csrf_failed": "Cross-site request refused",
    "insufficient_claims": "Not allowed",
    "rate_limited": "Too many requests",
    "reauthentication_required": "Recent sign-in required",
    "refresh_token_required": "Refresh token required",
    "session_ended": "Session ended",
    "token_expired": "Token expired",
    "token_invalid": "Token invalid",
    "token_wrong_type": "Token of another type",
}


class ConfigurationError(RuntimeError):
    """The application's settings can't work; the message says what to change."""


class CloakroomError(HTTPException):
    """An error with the authority's own ``error_code``.

    It is an ``HTTPException``: raised in a view it answers ``application/problem+json``
    (RFC 9457), and an application's own error handlers see it by its status.
    """

    def __new__(cls, *given: Any, **_: Any) -> CloakroomError:
        """One that is werkzeug's exception of its status too: handlers are found by that."""
        return Exception.__new__(_with_status(cls, cls._status_of(given)))

    @classmethod
    def _status_of(cls, given: tuple[Any, ...]) -> int:
        return int(given[1])

    def __init__(
        self,
        error_code: str,
        status: int,
        detail: str,
        *,
        reason: str | None = None,
        member: str | None = None,
        request_id: str | None = None,
        retry_after: int | None = None,
        limits: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        #: The HTTP status, by werkzeug's name for it.
        self.code = status
        #: Stable and machine-readable, as in Cloakroom's HTTP API.
        self.error_code = error_code
        #: For people.
        self.detail = detail
        #: Why the session is over, with ``session_ended``.
        self.reason = reason
        #: The member of the request that can't be taken.
        self.member = member
        #: The request's id in the authority's log.
        self.request_id = request_id
        #: Seconds to wait before trying again.
        self.retry_after = retry_after
        self._limits = limits or {}

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.code or 500

    @property
    def name(self) -> str:
        """The title of the problem."""
        return _TITLES.get(self.error_code, self.error_code)

    def __str__(self) -> str:
        return f"{self.error_code}: {self.detail}"

    def problem(self) -> dict[str, Any]:
        """The body of an answer (RFC 9457)."""
        members = {
            "type": f"urn:cloakroom:problem:{self.error_code}",
            "title": self.name,
            "status": self.status,
            "detail": self.detail,
            "code": self.error_code,
            "reason": self.reason,
            "member": self.member,
            "request_id": self.request_id,
        }
        return {name: value for name, value in members.items() if value is not None}

    @property
    def data(self) -> dict[str, Any]:
        """The same, by the name under which Flask-RESTX looks for an answer."""
        return self.problem()

    def get_body(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> str:
        """The problem as JSON."""
        return json.dumps(self.problem())

    def get_headers(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> list[tuple[str, str]]:
        """The headers of an answer: a challenge with 401, a pause with 429 and 503."""
        headers = [("Content-Type", "application/problem+json"), ("Cache-Control", "no-store")]
        if self.status == 401:
            headers.append(("WWW-Authenticate", _challenge(self.error_code)))
        if self.retry_after is not None:
            headers.append(("Retry-After", str(self.retry_after)))
        headers.extend(self._limits.items())
        return headers

    def get_response(self, environ: Any = None, scope: dict[str, Any] | None = None) -> Response:
        """The answer, or the one that a handler of the application has made of it."""
        if self.response is not None:
            return self.response  # type: ignore[return-value]
        return Response(self.get_body(), self.status, self.get_headers())


class Refused(CloakroomError):
    """The credential, or what it allows, isn't enough: a definite no."""


class Unavailable(CloakroomError):
    """Nobody knows: neither yes nor no. The answer is 503."""

    @classmethod
    def _status_of(cls, given: tuple[Any, ...]) -> int:
        return 503

    def __init__(
        self, detail: str, *, error_code: str = "authority_unreachable", retry_after: int = 1
    ) -> None:
        super().__init__(error_code, 503, detail, retry_after=retry_after)


_kinds: dict[tuple[type, int], type[CloakroomError]] = {}


def _with_status(kind: type[CloakroomError], status: int) -> type[CloakroomError]:
    werkzeugs = default_exceptions.get(status)
    if werkzeugs is None or issubclass(kind, werkzeugs):
        return kind
    if (kind, status) not in _kinds:
        _kinds[kind, status] = type(kind.__name__, (kind, werkzeugs), {})
    return _kinds[kind, status]


def _challenge(error_code: str) -> str:
    # RFC 6750 section 3: `error` only where a token was presented.
    if error_code == "credentials_required":
        return "Bearer"
    return 'Bearer error="invalid_token"'


def credentials_required() -> Refused:
    """No credential was presented."""
    return Refused("credentials_required", 401, "sign-in is required")


def token_invalid() -> Refused:
    """The token isn't one of the authority's."""
    return Refused("token_invalid", 401, "the token is invalid")


def token_expired() -> Refused:
    """The token's time is over."""
    return Refused("token_expired", 401, "the token has expired")


def token_wrong_type() -> Refused:
    """A genuine credential in the wrong place."""
    return Refused("token_wrong_type", 401, "a credential of another type belongs here")


def session_ended(reason: str | None) -> Refused:
    """The session is over."""
    return Refused("session_ended", 401, "the session has ended", reason=reason)


def reauthentication_required() -> Refused:
    """The last sign-in is too long ago."""
    detail = "a more recent sign-in is required"
    return Refused("reauthentication_required", 401, detail)


def insufficient_claims() -> Refused:
    """A claim is missing or has another value."""
    return Refused("insufficient_claims", 403, "the session lacks a required claim")


def on_behalf() -> Refused:
    """Somebody else acts as the user."""
    return Refused("forbidden", 403, "a session opened on behalf of a user can't do this")


def csrf_failed(detail: str) -> Refused:
    """The request may have been sent by another site."""
    return Refused("csrf_failed", 403, detail)


def refresh_token_required() -> CloakroomError:
    """The request for new tokens has no refresh token."""
    return CloakroomError("refresh_token_required", 400, "Refresh token required")


def of_answer(status: int, body: Any, retry_after: str | None) -> CloakroomError:
    """The error in an answer of the authority."""
    problem = body if isinstance(body, dict) else {}
    code = str(problem.get("code", "internal"))
    detail = str(problem.get("detail", f"the authority answered {status}"))
    pause = int(retry_after) if retry_after is not None and retry_after.isdigit() else None
    if status >= 500:
        return Unavailable(detail, error_code=code, retry_after=pause or 1)
    kind = Refused if status in (401, 403, 429) else CloakroomError
    return kind(
        code,
        status,
        detail,
        reason=problem.get("reason"),
        member=problem.get("member"),
        request_id=problem.get("request_id"),
        retry_after=pause,
    )
