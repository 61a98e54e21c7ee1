"""The live workers of a Redis, for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.failed_calls import names

_SERVES = ("target", "wire", "folder")
_RQ = ("hostname", "pid", "state", "birth", "last_heartbeat", "successful_job_count")


@dataclass(frozen=True, slots=True)
class ListedWorker:
    """One worker process that has a lease."""

    worker: str
    name: str
    target: str
    wire: str
    hostname: str
    pid: str
    #: busy or idle.
    state: str
    #: The calls that it holds.
    calls: str
    #: ISO 8601, as the next one.
    since: str
    heartbeat: str
    done: str


def list_workers(client: redis.Redis, name: str | None = None) -> list[ListedWorker]:
    """Return the workers of one name, or of all."""
    commands: Any = client  # redis-py's annotations know no bytes
    found = []
    for each in [name] if name else names(client):
        for worker in sorted(key.decode(errors="replace") for key in commands.hkeys(keys.leases(each))):
            pipe = commands.pipeline(transaction=False)
            pipe.hmget(keys.worker(worker), _SERVES)
            pipe.hmget(rq_state.worker_key(worker), _RQ)
            pipe.lrange(keys.held(worker), 0, 9)
            serves, rq, held = (_texts(answer) for answer in pipe.execute(raise_on_error=False))
            target, wire, _ = serves or [""] * 3
            hostname, pid, state, birth, heartbeat, done = rq or [""] * 6
            done = done or "0"
            calls = " ".join(held)
            found.append(
                ListedWorker(worker, each, target, wire, hostname, pid, state, calls, birth, heartbeat, done)
            )
    return found


def _texts(answer: Any) -> list[str]:
    return [(item or b"").decode(errors="replace") for item in answer] if isinstance(answer, list) else []
