"""What is common to all that is done with the calls of one name: its client, scripts and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from wsgi_timeout.compat import Self
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.connection import Commands, Scripts


class Queue:
    """One name in one Redis; `Calls`, `Attempts` and `Workers` say what can be done with it."""

    def __init__(self, client: redis.Redis, name: str, send: Callable[..., Any] | None = None) -> None:
        """Take a client, and another way to send one command than `Commands.send`, if there is one."""
        self.redis: Any = client  # redis-py's annotations know no bytes
        self.name = name
        self._send = send or Commands(client).send
        self.scripts = Scripts(self._send)
        self._queue = rq_state.queue_key(name)
        self._started = rq_state.started_key(name)
        self._leases = keys.leases(name)
        #: Where the bytes are counted that the calls of this name keep in Redis.
        self.buffered = keys.buffered(name)
        self._sequence = keys.sequence(name)

    @classmethod
    def of(cls, other: Queue) -> Self:
        """Return the same queue, for what this class does with it."""
        return cls(other.redis, other.name, other._send)
