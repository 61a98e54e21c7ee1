"""Encodes Redis commands with hiredis if it is installed, else with redis-py, which is three times slower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redis import connection

#: What is sent to Redis without a copy of it.
Buffer = bytes | bytearray | memoryview

#: An empty argument as it is sent.
_EMPTY = b"$0\r\n\r\n"


def _of_redis_py() -> Callable[[Sequence[Any]], bytes]:
    of_redis: Any = connection
    encode = of_redis.Encoder("utf-8", "strict", decode_responses=False).encode
    written = of_redis.PythonRespSerializer(6000, encode).pack
    return lambda words: b"".join(written(*words))


def _find() -> Callable[[Sequence[Any]], bytes]:
    try:
        import hiredis  # noqa: PLC0415 - an app may pin one without it
    except ImportError:
        return _of_redis_py()
    found: Any = getattr(hiredis, "pack_command", None)
    return found or _of_redis_py()


pack_command = _find()


def pack_large(words: Sequence[Any], data: Buffer) -> tuple[bytes, bytes]:
    """Return what comes before and after `data` in a command with that as its last argument."""
    head = pack_command((*words, b""))
    return head[: -len(_EMPTY)] + b"$%d\r\n" % len(data), b"\r\n"
