"""Junk in every kind of key: nothing that is read from Redis ends a process, and new calls are served."""

import http.client
import json
import os
import random
import threading
from contextlib import suppress

import pytest
from harness import ask, follow, until

from wsgi_timeout.store import keys, rq_state

SEED = int(os.environ.get("SEED", "20261128"))
ROUNDS = int(os.environ.get("ROUNDS", "30"))

#: What somebody may have written.
VALUES = [
    b"",
    b"\xff\xfe",
    b"-1",
    b"1e400",
    b"9" * 40,
    b"nan",
    b"{}",
    b"[" * 20_000,
    b"\x01\xff\xff",
    b"\x01\x90",
]
FIELDS = (
    *(
        "state",
        "attempt",
        "worker",
        "expires",
        "queue_ttl",
        "result_ttl",
        "max_attempts",
        "repeatable",
        "left",
    ),
    *("request", "head", "body", "chunks", "inboxes", "token", "path", "name", "seq", "progress", "outcome"),
    *("delivered", "created", "due", "handed", "stock", "count", "first", "read", "kept", "end", "readers"),
    *("writer", "uploader", "wire", "target", "pool", "mounts", "status", "data", "*", "+", ">", "@"),
)


def kinds(site, worker, inbox, call):
    """Return a key of each kind."""
    name = site.name
    return [
        *(keys.leases(name), keys.buffered(name), keys.delayed(name), keys.failed(name), keys.sequence(name)),
        *(keys.held(worker), keys.worker(worker), keys.inbox(inbox)),
        *(keys.call(call), keys.request_body(call), keys.response_body(call, 1), keys.value(call, 1)),
        *(keys.arguments(call), keys.tombstone(call), rq_state.job_key(call)),
        *(rq_state.queue_key(name), rq_state.intermediate_key(name), rq_state.failed_key(name)),
        *(rq_state.started_key(name), rq_state.workers_of_queue_key(name), rq_state.worker_key(worker)),
        *(rq_state.QUEUES, rq_state.WORKERS),
    ]


def write_junk(client, rng, key):
    """Put one odd thing into a key, or in its place."""
    value = rng.choice(VALUES)
    kind = client.type(key).decode()
    if rng.random() < 0.4 or kind == "none":
        client.delete(key)
        kind = rng.choice(["string", "list", "hash", "set", "zset"])
    {
        "string": lambda: client.set(key, value),
        "list": lambda: client.rpush(key, value),
        "hash": lambda: client.hset(key, rng.choice(FIELDS), value),
        "set": lambda: client.sadd(key, value),
        "zset": lambda: client.zadd(key, {value: rng.choice([0, -1, 1e300, float("inf")])}),
    }[kind]()
    return f"{kind} {key}: {value[:20]!r}"


def meanwhile(site, number):
    """Ask for what runs while junk is written; what comes of it is nobody's."""
    with suppress(OSError, http.client.HTTPException):
        ask(site.web.port, f"/slow?tag=during-{number}&seconds=0.3")


@pytest.mark.timeout(300)
def test_junk_in_every_kind_of_key(deploy):
    """Seeded junk in fields, entries and in place of whole keys: both halves live and serve."""
    site = deploy(pool=("--processes", "2"), lease_seconds=2, wait_seconds=4)
    rng, client = random.Random(SEED), site.redis.client
    done = []
    for number in range(ROUNDS):
        leases = keys.leases(site.name)
        workers = client.hkeys(leases) if client.type(leases) == b"hash" else []
        worker = rng.choice(workers or [b"w"]).decode(errors="replace")
        inbox = "none"
        if client.type(keys.worker(worker)) == b"hash":
            inbox = (client.hget(keys.worker(worker), "pool") or b"none").decode(errors="replace")
        threading.Thread(target=meanwhile, args=(site, number), daemon=True).start()
        records = [key for key in client.scan_iter(keys.call("*")) if client.type(key) == b"hash"]
        call = rng.choice(records).decode(errors="replace").removeprefix(keys.call("")) if records else "fc-x"
        done.append(write_junk(client, rng, rng.choice(kinds(site, worker, inbox, call))))
        client.publish(rq_state.command_channel(worker), rng.choice(VALUES))

        def served(number=number):
            return follow(site.web.port, f"/fast?tag=after-{number}")[-1].status == 200

        until(served, 20, f"a new call after {json.dumps(done[-3:])}")
    assert site.pool.popen.poll() is None
    assert site.web.popen.poll() is None
    # What is odd in a key that all share must not reach the next test.
    client.flushdb()
