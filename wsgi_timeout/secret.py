"""`WSGI_TIMEOUT_SECRET`: the secret that signs what functions pass through Redis, and seals requests."""

from __future__ import annotations

import os

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.settings import SECRET_VARIABLE

#: Characters: 128 bits in hexadecimal.
_LEAST = 32
#: The beginning of a secret that `serve` has made, since none was set.
MADE_BY_SERVE = "made-by-serve-"


def check_length() -> None:
    """Refuse a secret that is too short. Called at the start of every process that serves.

    Raises:
        ConfigurationError: `WSGI_TIMEOUT_SECRET` is set, and has fewer than 32 characters.
    """
    secret = os.environ.get(SECRET_VARIABLE, "")
    if secret and len(secret) < _LEAST:
        raise ConfigurationError(
            f"{SECRET_VARIABLE} has {len(secret)} characters and must have {_LEAST} at least, so that "
            "nobody guesses it: set one as from `openssl rand -hex 32`"
        )


def required() -> str:
    """Return the secret; raises `ConfigurationError` if it is not set."""
    secret = os.environ.get(SECRET_VARIABLE, "")
    if not secret:
        raise ConfigurationError(
            f"{SECRET_VARIABLE} is not set: set one long random string for all processes that spawn, run or "
            "get function calls, as from `openssl rand -hex 32`"
        )
    return secret
