"""Junk in every kind of key: nothing that is read from Redis ends a process, and new calls are served."""

import http.client
import json
import os
import random
import re
import threading
import time
from contextlib import suppress

import pytest
import redis
from harness import ask, follow, until

from wsgi_timeout.store import keys, rq_state

SEED = int(os.environ.get("SEED", "20261128"))
ROUNDS = int(os.environ.get("ROUNDS", "30"))
#: Seconds within which a new call is served: ten times what it takes on an idle machine, at the worst.
SERVED = 60

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
    *("unwanted", "untold", "abandon", "gone", "mark", "marked", "old", "inbox", "call", "digest", "body"),
    *("writer", "uploader", "wire", "target", "pool", "mounts", "status", "data", "*", "+", ">", "@"),
)


#: What the table of keys lists, and no junk is written to, with the reason.
LEFT_OUT = {
    "rq:suspended": "whatever stands there suspends the workers, as RQ's own do",
    "wt:paused:<name>": "whatever stands there pauses the name",
    "wt:doctor": "the doctor's own, for a moment",
}


def kinds(name, worker, inbox, call, digests):
    """Return a key of each kind, by how the table of keys spells it."""
    return {
        "wt:call:<id>": keys.call(call),
        "wt:in:<id>": keys.request_body(call),
        "wt:out:<id>:<attempt>": keys.response_body(call, 1),
        "wt:args:<id>": keys.arguments(call),
        "wt:value:<id>:<attempt>": keys.value(call, 1),
        "wt:delayed:<name>": keys.delayed(name),
        "wt:abandon:<name>": keys.abandon_times(name),
        "wt:key:<name>:<digest>": keys.claim(name, digests.get("key", "d")),
        "wt:first:<name>:<digest>": keys.first_wait(name, digests.get("first", "d")),
        "wt:hand:<id>": keys.handover(call),
        "wt:gone:<name>": keys.tombstones(name),
        "wt:gone-ids:<name>": keys.tombstone_ids(name),
        "wt:failed:<name>": keys.failed(name),
        "wt:done:<name>": keys.done(name),
        "wt:inbox:<random>": keys.inbox(inbox),
        "wt:held:<worker>": keys.held(worker),
        "wt:leases:<name>": keys.leases(name),
        "wt:web:<name>": keys.web(name),
        "wt:buffered:<name>": keys.buffered(name),
        "wt:sequence:<name>": keys.sequence(name),
        "wt:worker:<worker>": keys.worker(worker),
        "rq:queue:wt:<name>": rq_state.queue_key(name),
        "rq:queue:wt:<name>:intermediate": rq_state.intermediate_key(name),
        "rq:failed:wt:<name>": rq_state.failed_key(name),
        "rq:canceled:wt:<name>": rq_state.canceled_key(name),
        "rq:wip:wt:<name>": rq_state.started_key(name),
        "rq:job:<id>": rq_state.job_key(call),
        "rq:worker:<worker>": rq_state.worker_key(worker),
        "rq:queues": rq_state.QUEUES,
        "rq:workers": rq_state.WORKERS,
        "rq:workers:wt:<name>": rq_state.workers_of_queue_key(name),
    }


def test_every_kind_of_key_is_meant():
    """What the table of keys lists is junked, or left out for a stated reason."""
    listed = set(re.findall(r"^    ((?:wt|rq):\S+) ", keys.__doc__, re.MULTILINE))
    assert listed <= {*kinds("n", "w", "i", "c", {}), *LEFT_OUT}


def write_junk(client, rng, key):
    """Put one odd thing into a key, or in its place."""
    value = rng.choice(VALUES)
    kind = client.type(key).decode()
    if rng.random() < 0.4 or kind == "none":
        client.delete(key)
        kind = rng.choice(["string", "list", "hash", "set", "zset"])
    put = {
        "string": lambda: client.set(key, value),
        "list": lambda: client.rpush(key, value),
        "hash": lambda: client.hset(key, rng.choice(FIELDS), value),
        "set": lambda: client.sadd(key, value),
        "zset": lambda: client.zadd(key, {value: rng.choice([0, -1, 1e300, float("inf")])}),
    }[kind]
    with suppress(redis.exceptions.ResponseError):  # a process has made another kind of it meanwhile
        put()
    return f"{kind} {key}: {value[:20]!r}"


#: What a browser sends when a person goes to a page.
NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def meanwhile(site, number):
    """Ask for what runs while junk is written; what comes of it is nobody's."""
    target = f"/slow?tag=during-{number % 3}&seconds=0.3"
    keyed = {"Idempotency-Key": f"key-{number % 3}"}
    method, headers = ("GET", NAVIGATION) if number % 2 else ("POST", keyed)
    with suppress(OSError, http.client.HTTPException):
        ask(site.web.port, target, method, headers=headers)


def digests_of(client, rng):
    """Return one digest of each kind of key that has one, as far as there are any."""
    found = {}
    for kind in ("key", "first"):
        if there := sorted(client.scan_iter(f"wt:{kind}:*")):
            found[kind] = rng.choice(there).rpartition(b":")[2].decode(errors="replace")
    return found


@pytest.mark.timeout(600)
def test_junk_in_every_kind_of_key(deploy, seen):
    """Seeded junk in fields, entries and in place of whole keys: both halves live and serve."""
    site = deploy(
        pool=("--processes", "2"), lease_seconds=2, wait_seconds=4, idempotency_headers="Idempotency-Key"
    )
    rng, client = random.Random(SEED), site.redis.client
    done, seconds = [], []
    for number in range(ROUNDS):
        leases = keys.leases(site.name)
        workers = client.hkeys(leases) if client.type(leases) == b"hash" else []
        worker = rng.choice(workers or [b"w"]).decode(errors="replace")
        inbox = "none"
        with suppress(redis.exceptions.ResponseError):
            inbox = (client.hget(keys.worker(worker), "pool") or b"none").decode(errors="replace")
        threading.Thread(target=meanwhile, args=(site, number), daemon=True).start()
        records = [key for key in client.scan_iter(keys.call("*")) if client.type(key) == b"hash"]
        call = rng.choice(records).decode(errors="replace").removeprefix(keys.call("")) if records else "fc-x"
        meant = kinds(site.name, worker, inbox, call, digests_of(client, rng))
        done.append(write_junk(client, rng, rng.choice(list(meant.values()))))
        client.publish(rq_state.command_channel(worker), rng.choice(VALUES))

        def served(number=number):
            return follow(site.web.port, f"/fast?tag=after-{number}", timeout=SERVED)[-1].status == 200

        written = time.monotonic()
        until(served, SERVED, f"a new call after {json.dumps(done[-3:])}")
        seconds.append(time.monotonic() - written)
    seen("a new call is served", seconds)
    assert site.pool.popen.poll() is None
    assert site.web.popen.poll() is None
    # What is odd in a key that all share must not reach the next test.
    client.flushdb()
