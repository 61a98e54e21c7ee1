"""The base of `Calls`, `Attempts` and `Workers`: the client, scripts and keys of one name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import redis

from wsgi_timeout import metrics
from wsgi_timeout.compat import Self
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.connection import Commands, Scripts
from wsgi_timeout.store.record import Outcome, now_ms
from wsgi_timeout.store.redis_errors import AWAY, ErrorReply
from wsgi_timeout.store.synced import Synced


class Queue:
    """The queue of one name in one Redis."""

    def __init__(self, client: redis.Redis, name: str, send: Callable[..., Any] | None = None) -> None:
        """Use `client`, and for single commands `send`, by default `Commands.send`."""
        self.redis: Any = client  # redis-py's annotations know no bytes
        self.name = name
        commands = Commands(client)
        self._send = send or commands.send
        self._ping = Commands(client, retries=0).send
        self.scripts = Scripts(self._send, None if send else commands.begin)
        self._queue = rq_state.queue_key(name)
        self._started = rq_state.started_key(name)
        self._leases = keys.leases(name)
        #: The key in which the bytes are counted that this name's calls keep in Redis.
        self.buffered = keys.buffered(name)
        self._sequence = keys.sequence(name)

    @cached_property
    def synced(self) -> Scripts:
        """The same scripts; they return when what they wrote is on disk."""
        return Scripts(Synced.of(self.redis).send)

    def is_on_disk(self, call_id: str, state: str, attempt: int, worker: str = "") -> bool:
        """Wait until all that Redis knows of a call is on disk; False if that is something else by now.

        So it is when Redis came back without its last writes.
        """
        return bool(self.synced.run("sync", [keys.call(call_id)], [state, attempt, worker]))

    def answers(self) -> bool:
        """Return whether Redis answers a PING now; an error reply counts as an answer."""
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
        """End a call from outside its handler; return False if it had ended before, or does not exist.

        `result_ttl`: for how many seconds the outcome is kept; None: as the call was made with.
        """
        return self._end(call_id, outcome, detail, result_ttl, attempt)[0]

    def _end(
        self,
        call_id: str,
        outcome: Outcome,
        detail: str,
        result_ttl: float | None,
        attempt: int | None = None,
    ) -> tuple[bool, bool]:
        """Do as `end`; returns also whether nobody may be told of it before it is on disk."""
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
            return False, False
        metrics.count("calls_total", self.name, metrics.UNKNOWN_ROUTE, outcome)
        return True, bool(answer[2])

    @classmethod
    def of(cls, other: Queue) -> Self:
        """Return an object of this class for the same queue."""
        return cls(other.redis, other.name, other._send)
