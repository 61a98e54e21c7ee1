"""Lists the live workers of a Redis, for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from wsgi_timeout.store import keys, rq_state, seals
from wsgi_timeout.store.failed_calls import names
from wsgi_timeout.store.pauses import is_paused

_SERVES = ("target", "wire", "parent", "version", seals.FINGERPRINT)
_RQ = ("hostname", "pid", "state", "birth", "last_heartbeat", "successful_job_count")


@dataclass(frozen=True, slots=True)
class ListedWorker:
    """One live worker process: one with a lease."""

    worker: str
    name: str
    target: str
    wire: str
    #: Of wsgi-timeout.
    version: str
    #: Of its secret, see `seals`; empty: it has none.
    secret: str
    hostname: str
    pid: str
    #: The pool that it is a child of, HOST:PID; empty for a stock worker of RQ.
    pool: str
    #: busy; idle; or paused, when it takes nothing after what it runs.
    state: str
    #: The calls that it holds.
    calls: str
    #: When it started; ISO 8601, as the next field.
    since: str
    heartbeat: str
    done: str


def list_workers(client: redis.Redis, name: str | None = None) -> list[ListedWorker]:
    """Return the workers of one name, or of all."""
    commands: Any = client  # redis-py's annotations know no bytes
    found = []
    for each in [name] if name else names(client):
        stopped = is_paused(client, each)
        for worker in sorted(key.decode(errors="replace") for key in commands.hkeys(keys.leases(each))):
            pipe = commands.pipeline(transaction=False)
            pipe.hmget(keys.worker(worker), _SERVES)
            pipe.hmget(rq_state.worker_key(worker), _RQ)
            pipe.lrange(keys.held(worker), 0, 9)
            serves, rq, held = (_texts(answer) for answer in pipe.execute(raise_on_error=False))
            target, wire, parent, version, secret = serves or [""] * 5
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
                )
            )
    return found


def _texts(answer: Any) -> list[str]:
    return [(item or b"").decode(errors="replace") for item in answer] if isinstance(answer, list) else []
