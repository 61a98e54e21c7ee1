"""Waits until a server with `appendfsync everysec` has synced its file, by polling INFO instead of WAITAOF.

Valkey (seen with 9.1.2), and Redis 7.4 until it was fixed (https://github.com/redis/redis/pull/13793),
answer WAITAOF too early: for a second after a sync they report later writes as synced. Two things hold for
every version: while no sync is under way, a write is in the file before the server sleeps; and one second
after a sync has begun, the next one begins. So this polls until two answers in a row show no sync under way,
waits for that second, and polls in the same way again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from wsgi_timeout.store.redis_errors import ConnectionLost, NotOnDisk

#: The command that is polled.
INFO = ("INFO", "server", "persistence")
#: Seconds after which a sync has begun: the server's second, and a round of its timer.
_SYNC_SECONDS = 1.1
#: Seconds between two polls while a sync is under way.
_PAUSE_SECONDS = 0.02


def wait(first: bytes, look: Callable[[], Any], seconds: float) -> None:
    """Return when all is on disk that was written before the `first` answer to `INFO`.

    `look` sends `INFO` again and returns the answer. Raises `NotOnDisk` after so many seconds, and
    `ConnectionLost` if this is another server, or was started anew.
    """
    deadline = time.monotonic() + seconds
    run_id = _value(first, b"run_id")
    _settle(run_id, look, deadline)
    time.sleep(_SYNC_SECONDS)
    _settle(run_id, look, deadline)


def _settle(run_id: bytes, look: Callable[[], Any], deadline: float) -> None:
    """Return when two answers in a row show no sync under way."""
    quiet = 0
    while quiet < 2:
        info = look()
        if _value(info, b"run_id") != run_id:
            raise ConnectionLost("Redis was started anew")
        if _value(info, b"aof_last_write_status") != b"ok" or time.monotonic() > deadline:
            raise NotOnDisk("Redis has not put it on disk in time")
        quiet = quiet + 1 if _value(info, b"aof_pending_bio_fsync") == b"0" else 0
        if not quiet:
            time.sleep(_PAUSE_SECONDS)


def _value(info: bytes, name: bytes) -> bytes:
    return info.partition(b"\n" + name + b":")[2].partition(b"\r")[0]
