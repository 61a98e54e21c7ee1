"""Junk for Redis: odd values, fields and types, for a key of each kind."""

from contextlib import suppress

import redis

from wsgi_timeout.store import keys, rq_state

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
