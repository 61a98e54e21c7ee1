"""Pauses and drains: what an operator tells the workers of a name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.record import now_ms

#: What a pool is told in its inbox, among the ids of calls that it is to end.
DRAIN = b"drain"


def pause(client: redis.Redis, name: str) -> bool:
    """Have the workers of a name, and of its functions, take no calls; False if they are paused already.

    What runs goes on, and new calls are queued. Raises what redis-py raises.
    """
    commands: Any = client  # redis-py's annotations know no bytes
    return bool(commands.set(keys.paused(name), now_ms(), nx=True))


def resume(client: redis.Redis, name: str) -> bool:
    """End a pause; False if there is none. Raises what redis-py raises."""
    commands: Any = client
    return bool(commands.unlink(keys.paused(name)))


def is_paused(client: redis.Redis, name: str) -> bool:
    """Return whether workers of this name take nothing, by `pause` or by `rq suspend`."""
    commands: Any = client
    return bool(commands.exists(rq_state.SUSPENDED, *keys.pauses(name)))


def drain(client: redis.Redis, workers: Iterable[str]) -> None:
    """Have the pools of these workers take no more calls, and end when what runs has ended."""
    commands: Any = client
    inboxes = {commands.hget(keys.worker(worker), "pool") for worker in workers}
    for inbox in inboxes - {None}:
        key = keys.inbox(inbox.decode(errors="replace"))
        commands.rpush(key, DRAIN)
        commands.expire(key, keys.INBOX_TTL)
