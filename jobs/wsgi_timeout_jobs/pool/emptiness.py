"""Asks whether there is anything to do for a pool, so that an idle one sends Redis few commands."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout_jobs.pool.queue_keeper import QueueKeeper

#: Seconds between two questions while nothing runs.
_SECONDS = 1.0


class Emptiness:
    """Whether a pool with its queues had nothing to do when Redis was last asked."""

    def __init__(self, inbox: str) -> None:
        """`inbox`: of the pool."""
        self._inbox = keys.inbox(inbox)
        self._empty = False
        self._next_look = 0.0

    def __bool__(self) -> bool:
        return self._empty

    def look(self, keepers: Mapping[str, QueueKeeper], running: Iterable[object]) -> bool:
        """Ask if it is time to; return whether it was asked, and there is no call, message or pause.

        What runs is something to do, so nothing is asked then. Raises what redis-py raises.
        """
        if any(running):
            self._empty, self._next_look = False, 0.0
            return False
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._empty = all(
            keeper.is_empty(self._inbox, rq_state.SUSPENDED, *keys.pauses(queue))
            for queue, keeper in keepers.items()
        )
        self._next_look = now + _SECONDS
        return self._empty
