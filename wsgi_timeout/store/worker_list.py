"""Lists the live workers of a Redis, for people."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import redis

from wsgi_timeout.store import junk, keys, rq_state, seals
from wsgi_timeout.store.failed_calls import names
from wsgi_timeout.store.pauses import is_paused

_SERVES = ("target", "wire", "parent", "version", seals.FINGERPRINT, "clock", "told")
_RQ = ("hostname", "pid", "state", "birth", "last_heartbeat", "successful_job_count")
#: Seconds between two looks whether leases were renewed.
_LOOK_SECONDS = 0.1
#: Of a field that is left out of tables.
_JSON_ONLY = {"table": False}


@dataclass(frozen=True, slots=True)
class ListedWorker:
    """One live worker process: one with a lease."""

    worker: str
    name: str
    target: str
    wire: str = field(metadata=_JSON_ONLY)
    #: Of wsgi-timeout.
    version: str
    #: Of its secret, see `seals`; empty: it has none.
    secret: str = field(metadata=_JSON_ONLY)
    hostname: str = field(metadata=_JSON_ONLY)
    pid: str
    #: The pool that it is a child of, HOST:PID; empty for a stock worker of RQ.
    pool: str
    #: busy; idle; or paused, when it takes nothing after what it runs.
    state: str
    #: The calls that it holds.
    calls: str
    #: When it started; ISO 8601, as the next field.
    since: str
    #: When its record was renewed, about once a minute. Whether it lives its lease says, see `renewed`.
    heartbeat: str = field(metadata=_JSON_ONLY)
    done: str
    #: Seconds that its machine's clock was ahead of Redis' machine's about a minute ago; None: not known.
    clock_ahead: float | None = field(metadata=_JSON_ONLY)


def list_workers(client: redis.Redis, name: str | None = None) -> list[ListedWorker]:
    """Return the workers of one name, or of all."""
    commands: Any = client  # redis-py's annotations know no bytes
    found = []
    for each in [name] if name else names(client):
        stopped = is_paused(client, each)
        leases = keys.leases(each)
        there = junk.read(leases, partial(commands.hkeys, leases), [])
        for worker in sorted(key.decode(errors="replace") for key in there):
            pipe = commands.pipeline(transaction=False)
            pipe.hmget(keys.worker(worker), _SERVES)
            pipe.hmget(rq_state.worker_key(worker), _RQ)
            pipe.lrange(keys.held(worker), 0, 9)
            read = (keys.worker(worker), rq_state.worker_key(worker), keys.held(worker))
            replies = zip(read, pipe.execute(raise_on_error=False), strict=True)
            serves, rq, held = (_texts(junk.answer(key, reply, [])) for key, reply in replies)
            target, wire, parent, version, secret, clock, told = serves or [""] * 7
            hostname, pid, state, birth, heartbeat, done = rq or [""] * 6
            found.append(
                ListedWorker(
                    worker,
                    each,
                    target,
                    wire,
                    version,
                    secret,
                    hostname,
                    pid,
                    f"{hostname}:{parent}" if parent else "",
                    "paused" if stopped and state != "busy" else state,
                    " ".join(held),
                    birth,
                    heartbeat,
                    done or "0",
                    _ahead(clock, told),
                )
            )
    return found


def renewed(client: redis.Redis, workers: Iterable[ListedWorker], seconds: float) -> tuple[int, int]:
    """Look for `seconds` at most whether these workers renew their leases.

    Returns how many did, and how many there are still: a lost lease is none. Raises what redis-py raises.
    """
    commands: Any = client
    ours = {worker.worker.encode(): worker.name for worker in workers}
    begun = _leases(commands, ours)
    deadline = time.monotonic() + seconds
    while True:
        now = _leases(commands, ours)
        count = sum(value != begun.get(worker) for worker, value in now.items())
        if count == len(now) or time.monotonic() > deadline:
            return count, len(now)
        time.sleep(_LOOK_SECONDS)


def _leases(commands: Any, workers: dict[bytes, str]) -> dict[bytes, bytes]:
    found = {}
    for name in set(workers.values()):
        key = keys.leases(name)
        found[name] = junk.read(key, partial(commands.hgetall, key), {})
    return {worker: found[name][worker] for worker, name in workers.items() if worker in found[name]}


def _ahead(clock: str, told: str) -> float | None:
    """Return by how many seconds a clock was ahead of Redis', which told its own as TIME does."""
    try:
        seconds, microseconds = told.split()
        own = datetime.fromisoformat(clock.replace("Z", "+00:00")).timestamp()
        return own - int(seconds) - int(microseconds) / 1e6
    except (ValueError, OverflowError):
        return None


def _texts(answer: list[bytes | None]) -> list[str]:
    return [(item or b"").decode(errors="replace") for item in answer]
