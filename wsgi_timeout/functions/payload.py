"""Arguments and results of functions: cloudpickle, signed with a secret that is not in Redis.

Without the signature whoever can write to Redis could run code wherever a pickle is read. The signature also
covers the call's id and the payload's purpose, so that no payload can replace another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Literal

import redis
from itsdangerous import BadSignature, Signer

from wsgi_timeout import secret
from wsgi_timeout.errors import PayloadRefused, PayloadTooLarge
from wsgi_timeout.needs import need
from wsgi_timeout.settings import SECRET_VARIABLE

#: Bytes of one chunk of a payload that is too large to be stored with its call.
CHUNK = 1024 * 1024

Purpose = Literal["arguments", "result"]


def pack(value: Any, call_id: str, purpose: Purpose, max_bytes: int) -> bytes:
    """Return `value` pickled and signed; raises `PayloadTooLarge`, or `TypeError` if it cannot be pickled."""
    need("cloudpickle", "a function's arguments and results", "functions")
    import cloudpickle  # noqa: PLC0415 - what spawns no function needs none

    try:
        data: bytes = cloudpickle.dumps(value)
    except Exception as error:
        raise TypeError(f"the {purpose} of call {call_id} cannot be pickled: {error}") from error
    if len(data) > max_bytes:
        raise PayloadTooLarge(
            f"the {purpose} of call {call_id}: {len(data)} bytes, max_payload allows {max_bytes}; "
            "pass a path or a key to the data instead"
        )
    return _signer(call_id, purpose).sign(data)


def unpack(blob: bytes, call_id: str, purpose: Purpose) -> Any:
    """Return what `pack` took; raises `PayloadRefused` before anything is unpickled."""
    try:
        data = _signer(call_id, purpose).unsign(blob)
    except BadSignature:
        raise PayloadRefused(
            f"the {purpose} of call {call_id}: not signed with this {SECRET_VARIABLE}, and not read; "
            "set the same secret in every process, and look who else writes to this Redis"
        ) from None
    need("cloudpickle", "a function's arguments and results", "functions")
    import cloudpickle  # noqa: PLC0415

    return cloudpickle.loads(data)


def chunks_of(blob: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the numbered chunks of a payload that is too large to be stored with its call."""
    return ((number, blob[start : start + CHUNK]) for number, start in enumerate(range(0, len(blob), CHUNK)))


def write_chunk(client: redis.Redis, key: str, number: int, chunk: bytes, ttl: float) -> None:
    """Write one chunk, which may be written twice; `ttl` is that of the whole payload, in seconds."""
    # In a transaction: without its TTL the key would stay for ever.
    pipe = client.pipeline(transaction=True)
    pipe.hset(key, str(number), chunk)
    pipe.expire(key, max(1, int(ttl)))
    pipe.execute()


def read_chunks(client: redis.Redis, key: str, count: int) -> bytes | None:
    """Return a payload of `count` chunks; None if it has expired."""
    commands: Any = client  # redis-py's annotations know no bytes
    # `count` comes from Redis too: a wrong one must not make this read without end.
    if int(commands.hlen(key)) != count:
        return None
    chunks = [commands.hget(key, str(number)) for number in range(count)]
    return None if None in chunks else b"".join(chunks)


def _signer(call_id: str, purpose: Purpose) -> Signer:
    # The library's own defaults are SHA-1 and a key derivation by concatenation.
    return Signer(
        secret.required(),
        salt=f"wsgi-timeout.{purpose}.{call_id}",
        key_derivation="hmac",
        digest_method=hashlib.sha256,
    )
