"""Arguments and results of functions: cloudpickle, signed with a secret that is not in Redis.

Whoever can write to Redis could else run code wherever a pickle is read. A signature also names the
call and what the payload is to it, so that none can stand in for another.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, Literal

import cloudpickle
from itsdangerous import BadSignature, Signer

from wsgi_timeout.errors import ConfigurationError, PayloadRefused, PayloadTooLarge

SECRET_VARIABLE = "WSGI_TIMEOUT_SECRET"  # noqa: S105 - its name

Purpose = Literal["arguments", "result"]


def pack(value: Any, call_id: str, purpose: Purpose, max_bytes: int) -> bytes:
    """Return `value` pickled and signed; raises `PayloadTooLarge`, or `TypeError` if it cannot be pickled."""
    try:
        data: bytes = cloudpickle.dumps(value)
    except Exception as error:
        raise TypeError(f"the {purpose} of call {call_id} cannot be pickled: {error}") from error
    if len(data) > max_bytes:
        raise PayloadTooLarge(
            f"the {purpose} of call {call_id} have {len(data)} bytes, max_payload allows {max_bytes}: "
            "pass a path or a key to the data instead"
        )
    return _signer(call_id, purpose).sign(data)


def unpack(blob: bytes, call_id: str, purpose: Purpose) -> Any:
    """Return what `pack` took; raises `PayloadRefused` before anything is unpickled."""
    try:
        data = _signer(call_id, purpose).unsign(blob)
    except BadSignature:
        raise PayloadRefused(
            f"the {purpose} of call {call_id} were not signed with this {SECRET_VARIABLE}, and are not read: "
            "set the same secret in every process, and look who else writes to this Redis"
        ) from None
    return cloudpickle.loads(data)


def check_secret() -> str:
    """Return the secret; raises `ConfigurationError` if it is not set."""
    secret = os.environ.get(SECRET_VARIABLE, "")
    if not secret:
        raise ConfigurationError(
            f"{SECRET_VARIABLE} is not set: set one long random string for all processes that spawn, run or "
            "get function calls, as from `openssl rand -hex 32`"
        )
    return secret


def _signer(call_id: str, purpose: Purpose) -> Signer:
    # The library's own defaults are SHA-1 and a key derivation by concatenation.
    return Signer(
        check_secret(),
        salt=f"wsgi-timeout.{purpose}.{call_id}",
        key_derivation="hmac",
        digest_method=hashlib.sha256,
    )
