"""Settings: ``CLOAKROOM_*`` in ``app.config``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import Flask

from ._errors import ConfigurationError

#: A duration: seconds, a ``timedelta``, or text such as ``"15m"``.
Duration = int | float | timedelta | str

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DEFAULTS: dict[str, Any] = {
    "CLOAKROOM_URL": None,
    "CLOAKROOM_API_KEY": None,
    "CLOAKROOM_API_KEY_FILE": None,
    "CLOAKROOM_CA_FILE": None,
    "CLOAKROOM_TIMEOUT": "2s",
    "CLOAKROOM_MAX_STALENESS": "2s",
    "CLOAKROOM_CHECK_AT_START": True,
    "CLOAKROOM_AUDIENCE": "cloakroom",
    "CLOAKROOM_ISSUER": None,
    "CLOAKROOM_ORIGIN": None,
    "CLOAKROOM_ALLOWED_ORIGINS": (),
    "CLOAKROOM_CSRF": True,
    "CLOAKROOM_LOGIN_VIEW": None,
    "CLOAKROOM_RETURN_PARAM": "return_to",
    "CLOAKROOM_FRESH_FOR": "10m",
    "CLOAKROOM_REMEMBER_FOR": "14d",
    "CLOAKROOM_RATE_LIMIT": "100/15m",
}


def seconds(duration: Duration) -> float:
    """``duration`` in seconds."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, int | float):
        return float(duration)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*", duration)
    if match is None:
        raise ConfigurationError(f"{duration!r} is no duration; write 90, '15m' or '30d'")
    return float(match[1]) * _UNITS[match[2]]


def limit(text: str) -> tuple[int, float]:
    """A limit such as ``"100/15m"``: how many, in how many seconds."""
    count, slash, window = text.partition("/")
    if not slash or not count.strip().isdigit() or int(count) < 1:
        raise ConfigurationError(f"{text!r} is no limit; write '100/15m'")
    return int(count), seconds(window if window.strip()[:1].isdigit() else f"1{window.strip()}")


@dataclass(frozen=True)
class Settings:
    """The settings of one application, read once."""

    url: str
    api_key: str
    ca_file: str | None
    timeout: float
    max_staleness: float
    check_at_start: bool
    audience: str
    issuer: str | None
    origin: str | None
    allowed_origins: tuple[str, ...]
    csrf: bool
    return_param: str
    fresh_for: float
    remember_for: float
    rate_limit: tuple[int, float]

    @property
    def is_fake(self) -> bool:
        """Whether sessions are kept in this process, for tests."""
        return self.url == "fake:"


def read(app: Flask) -> Settings:
    """The settings of ``app``, with defaults for what it doesn't say."""
    for name, default in _DEFAULTS.items():
        app.config.setdefault(name, default)
    config = app.config
    url = _text(app, "CLOAKROOM_URL")
    if url is None:
        raise ConfigurationError(
            "CLOAKROOM_URL is not set: give the authority's admin listener, "
            "as app.config['CLOAKROOM_URL'] = 'http://127.0.0.1:7401' or in the environment"
        )
    if url == "fake:" and not app.testing:
        raise ConfigurationError("CLOAKROOM_URL = 'fake:' is for tests; set TESTING too")
    return Settings(
        url=url,
        api_key="" if url == "fake:" else _api_key(app),
        ca_file=_text(app, "CLOAKROOM_CA_FILE"),
        timeout=seconds(config["CLOAKROOM_TIMEOUT"]),
        max_staleness=seconds(config["CLOAKROOM_MAX_STALENESS"]),
        check_at_start=bool(config["CLOAKROOM_CHECK_AT_START"]),
        audience=config["CLOAKROOM_AUDIENCE"],
        issuer=config["CLOAKROOM_ISSUER"],
        origin=config["CLOAKROOM_ORIGIN"],
        allowed_origins=_origins(config["CLOAKROOM_ALLOWED_ORIGINS"]),
        csrf=bool(config["CLOAKROOM_CSRF"]),
        return_param=config["CLOAKROOM_RETURN_PARAM"],
        fresh_for=seconds(config["CLOAKROOM_FRESH_FOR"]),
        remember_for=seconds(config["CLOAKROOM_REMEMBER_FOR"]),
        rate_limit=limit(config["CLOAKROOM_RATE_LIMIT"]),
    )


def _text(app: Flask, name: str) -> str | None:
    # An empty environment value counts as unset.
    return app.config[name] or os.environ.get(name) or None


def _origins(given: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    # From the environment a list comes as text.
    return tuple(given.replace(",", " ").split() if isinstance(given, str) else given)


def _api_key(app: Flask) -> str:
    key, file = _text(app, "CLOAKROOM_API_KEY"), _text(app, "CLOAKROOM_API_KEY_FILE")
    if key is None and file is not None:
        try:
            key = Path(file).read_text().strip()
        except OSError as fault:
            raise ConfigurationError(f"CLOAKROOM_API_KEY_FILE can't be read: {fault}") from fault
    if key is None:
        raise ConfigurationError(
            "CLOAKROOM_API_KEY is not set: make one with "
            "`cloakroom api-keys create --name flask --scope sessions:read --scope sessions:write`"
        )
    if not re.fullmatch(r"cka_[A-Za-z0-9_-]+", key):
        hint = " (it looks like a path: that is CLOAKROOM_API_KEY_FILE)" if "/" in key else ""
        raise ConfigurationError(f"CLOAKROOM_API_KEY is no API key: they begin with cka_{hint}")
    return key
