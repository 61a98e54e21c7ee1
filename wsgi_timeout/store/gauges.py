"""Gauges of every name, read from Redis for metrics: a few commands per name, however long the queue."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import redis

from wsgi_timeout.store import junk, keys, rq_state
from wsgi_timeout.store.failed_calls import names
from wsgi_timeout.store.record import number, text
from wsgi_timeout.store.redis_errors import ErrorReply

#: The name of a metric without `wsgi_timeout_`, its labels, its value.
Gauge = tuple[str, tuple[str, ...], float]


def read(client: redis.Redis) -> list[Gauge]:
    """Return the gauges of every name that workers have served, and of the server; raises as redis-py."""
    commands: Any = client  # redis-py's annotations know no bytes
    found: list[Gauge] = [("redis_up", (), 1)]
    with suppress(ErrorReply):  # not every user may ask for it
        memory = commands.info("memory")
        found.append(("redis_memory_bytes", (), float(memory.get("used_memory", 0))))
        found.append(("redis_memory_max_bytes", (), float(memory.get("maxmemory", 0))))
    for name in names(client):
        found += of_name(commands, name)
    return found


def of_name(client: redis.Redis, name: str) -> list[Gauge]:
    """Return the gauges of one name; raises what redis-py raises."""
    commands: Any = client
    queue, bytes_kept = rq_state.queue_key(name), keys.buffered(name)
    read = [queue, rq_state.started_key(name), keys.delayed(name), keys.leases(name), bytes_kept, queue]
    pipe = commands.pipeline(transaction=False)
    pipe.llen(queue)
    pipe.zcard(rq_state.started_key(name))
    pipe.zcard(keys.delayed(name))
    pipe.hlen(keys.leases(name))
    pipe.hmget(bytes_kept, "*", "+")
    pipe.lindex(queue, 0)
    replies = zip(read, pipe.execute(raise_on_error=False), strict=True)
    *counts, budget, head = (junk.answer(key, reply, None) for key, reply in replies)
    metrics = ("queued_calls", "running_calls", "delayed_calls", "workers")
    found: list[Gauge] = [
        (metric, (name,), count) for metric, count in zip(metrics, counts, strict=True) if type(count) is int
    ]
    if isinstance(budget, list):
        found.append(("buffered_bytes", (name,), number(budget[0])))
        if budget[1]:
            found.append(("buffered_bytes_max", (name,), number(budget[1])))
    found.append(("queue_head_age_seconds", (name,), age_of(commands, head)))
    return found


def age_of(commands: Any, head: object) -> float:
    """Return for how many seconds a queued call has waited; 0 if `head` is None."""
    if not isinstance(head, bytes):
        return 0.0
    key = keys.call(text(head))
    created = junk.read(key, lambda: commands.hget(key, "created"), None)
    return max(0.0, time.time() - number(created) / 1000) if created else 0.0
