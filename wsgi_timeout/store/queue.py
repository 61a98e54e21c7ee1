"""What is common to all that is done with the calls of one name: its client, scripts and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from wsgi_timeout import metrics
from wsgi_timeout.compat import Self
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.connection import Commands, Scripts
from wsgi_timeout.store.record import Outcome, now_ms
from wsgi_timeout.store.redis_errors import AWAY, ErrorReply


class Queue:
    """One name in one Redis; `Calls`, `Attempts` and `Workers` say what can be done with it."""

    def __init__(self, client: redis.Redis, name: str, send: Callable[..., Any] | None = None) -> None:
        """Take a client, and another way to send one command than `Commands.send`, if there is one."""
        self.redis: Any = client  # redis-py's annotations know no bytes
        self.name = name
        self._send = send or Commands(client).send
        self._ping = Commands(client, retries=0).send
        self.scripts = Scripts(self._send)
        self._queue = rq_state.queue_key(name)
        self._started = rq_state.started_key(name)
        self._leases = keys.leases(name)
        #: Where the bytes are counted that the calls of this name keep in Redis.
        self.buffered = keys.buffered(name)
        self._sequence = keys.sequence(name)

    def answers(self) -> bool:
        """Whether Redis answers a small command now, be it with a refusal."""
        try:
            self._ping("PING")
        except AWAY:
            return False
        except ErrorReply:
            return True
        return True

    def end(
        self,
        call_id: str,
        outcome: Outcome,
        detail: str,
        result_ttl: float | None,
        attempt: int | None = None,
    ) -> bool:
        """End a call from outside its handler; returns False if it had ended, or never was.

        `result_ttl`: seconds that the outcome is kept; None: what the call was made with.
        """
        answer = self.scripts.run(
            "end",
            [keys.call(call_id), rq_state.job_key(call_id)],
            [
                call_id,
                now_ms(),
                outcome,
                detail,
                "" if result_ttl is None else int(result_ttl),
                "" if attempt is None else attempt,
            ],
        )
        if answer[0] != b"ok":
            return False
        metrics.count("calls_total", self.name, metrics.UNKNOWN_ROUTE, outcome)
        return True

    @classmethod
    def of(cls, other: Queue) -> Self:
        """Return the same queue, for what this class does with it."""
        return cls(other.redis, other.name, other._send)
