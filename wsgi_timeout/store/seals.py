"""Seals: with `WSGI_TIMEOUT_SECRET` set, queued requests carry an HMAC, and workers run no others.

Otherwise whoever can write to Redis could send requests to the app past the web server, for instance with a
`REMOTE_USER` of their choice. The HMAC (RFC 2104) covers the request, the call's id and the name, so it fits
no other call and no other app.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.settings import MADE_BY_SERVE, SECRET_VARIABLE

#: The field of a worker's description that holds the fingerprint of its secret.
FINGERPRINT = "secret"


def seal(packed: bytes, call_id: str, name: str) -> bytes:
    """Return the seal of a packed request; empty if no secret is set."""
    return _mac(b"request", call_id.encode(), name.encode(), packed)


def check(mac: bytes, packed: bytes, call_id: str, name: str) -> None:
    """Check the seal of a packed request; if no secret is set, any request passes.

    Raises:
        ConfigurationError: the seal is missing, or does not fit.
    """
    wanted = seal(packed, call_id, name)
    if wanted and not hmac.compare_digest(wanted, mac):
        raise ConfigurationError(
            f"the request of call {call_id} is not sealed with this {SECRET_VARIABLE}, and was not run: set "
            "the same secret in web processes and workers, and look who else writes to this Redis"
        )


def fingerprint() -> str:
    """Return a digest that tells secrets apart without revealing them; empty if no secret is set."""
    return _mac(b"fingerprint").hex()[:16]


def _mac(*parts: bytes) -> bytes:
    secret = os.environ.get(SECRET_VARIABLE, "")
    # A secret that `serve` has made seals nothing: web processes started beside it do not have it.
    if not secret or secret.startswith(MADE_BY_SERVE):
        return b""
    return hmac.digest(secret.encode(), b"wsgi-timeout\0" + b"\0".join(parts), hashlib.sha256)
