"""Sessions, sign-in and bearer tokens for Flask, kept by a Cloakroom authority.

app = Flask(__name__)
Cloakroom(app, login_view="login")
"""

from __future__ import annotations

from ._actions import (
    confirm_login,
    epoch_of,
    generate_tokens,
    login_user,
    logout_everywhere,
    logout_user,
    refresh_access_token,
    verify_token,
)
from ._errors import CloakroomError, ConfigurationError, Refused, Unavailable
from ._extension import Cloakroom, csrf_exempt, csrf_token, is_local_path
from ._guards import claims_required, fresh_login_required, login_fresh, login_required
from ._rate import rate_limit
from ._session import CloakroomSession, CloakroomSessionInterface
from ._users import AnonymousUserMixin, UserMixin, current_session, current_user

__all__ = [
    "AnonymousUserMixin",
    "Cloakroom",
    "CloakroomError",
    "CloakroomSession",
    "CloakroomSessionInterface",
    "ConfigurationError",
    "Refused",
    "Unavailable",
    "UserMixin",
    "claims_required",
    "confirm_login",
    "csrf_exempt",
    "csrf_token",
    "current_session",
    "current_user",
    "epoch_of",
    "fresh_login_required",
    "generate_tokens",
    "is_local_path",
    "login_fresh",
    "login_required",
    "login_user",
    "logout_everywhere",
    "logout_user",
    "rate_limit",
    "refresh_access_token",
    "verify_token",
]
