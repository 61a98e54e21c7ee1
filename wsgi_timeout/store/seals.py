"""Seals: where a secret is set, a queued request says that a process of ours has made it.

Whoever can write to Redis could else send the app requests that no server let in, as with a
`REMOTE_USER` of his choice. A seal is an HMAC (RFC 2104) of a request with its call id and name: it fits no
other call, and no other app.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.settings import MADE_BY_SERVE, SECRET_VARIABLE

#: What a worker's description says of the secret it has.
FINGERPRINT = "secret"


def seal(packed: bytes, call_id: str, name: str) -> bytes:
    """Return the seal of a packed request; empty without a secret."""
    return _mac(b"request", call_id.encode(), name.encode(), packed)


def check(mac: bytes, packed: bytes, call_id: str, name: str) -> None:
    """Refuse a packed request that is not sealed with our secret; without one any request is taken.

    Raises:
        ConfigurationError: the seal does not fit, or there is none.
    """
    wanted = seal(packed, call_id, name)
    if wanted and not hmac.compare_digest(wanted, mac):
        raise ConfigurationError(
            f"the request of call {call_id} is not sealed with this {SECRET_VARIABLE}, and was not run: set "
            "the same secret in web processes and workers, and look who else writes to this Redis"
        )


def fingerprint() -> str:
    """Return what tells our secret from another, and nobody what it is; empty without one."""
    return _mac(b"fingerprint").hex()[:16]


def _mac(*parts: bytes) -> bytes:
    secret = os.environ.get(SECRET_VARIABLE, "")
    # Web processes that are started beside `serve` do not know what it has made for its functions.
    if not secret or secret.startswith(MADE_BY_SERVE):
        return b""
    return hmac.digest(secret.encode(), b"wsgi-timeout\0" + b"\0".join(parts), hashlib.sha256)
