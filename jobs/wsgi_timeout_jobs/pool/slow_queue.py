"""Logs a warning when a call waits long for a worker; it says what the workers run."""

from __future__ import annotations

import logging
import time
from typing import Any

import redis

from wsgi_timeout.store import gauges, rq_state
from wsgi_timeout.store.call_list import list_calls
from wsgi_timeout.store.pauses import is_paused
from wsgi_timeout.store.record import text

log = logging.getLogger("wsgi_timeout.pool")

#: Seconds between two checks of the queue's first call, and between two warnings.
_LOOK_SECONDS = 2.0
_QUIET_SECONDS = 60.0
#: How many running calls a warning names.
_MOST = 10


class SlowQueue:
    """Watches how long the first call of a queue has waited."""

    def __init__(self, client: redis.Redis, name: str, seconds: float) -> None:
        """`seconds`: how long a call may wait before a warning."""
        self._redis: Any = client  # redis-py's annotations know no bytes
        self._name = name
        self._seconds = seconds
        self._next_look = self._next_warning = 0.0

    def look(self) -> None:
        """Check the queue if it is time to, and warn if needed; raises what redis-py raises."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        queue = rq_state.queue_key(self._name)
        head = self._redis.lindex(queue, 0)
        age = gauges.age_of(self._redis, head)
        if age >= self._seconds and now >= self._next_warning:
            self._next_warning = now + _QUIET_SECONDS
            self._warn(text(head), age, self._redis.llen(queue))

    def _warn(self, call_id: str, age: float, queued: int) -> None:
        if is_paused(self._redis, self._name):
            log.warning(
                "queue wt:%s: %s has waited for %.0f s, since its workers are paused: "
                "`wsgi-timeout resume %s`, or `rq resume`, ends that",
                *(self._name, call_id, age, self._name.partition(":")[0]),
            )
            return
        running = list_calls(self._redis, self._name, ("running",), _MOST + 1)
        told = [f"{call.id} {call.call} for {call.age - call.queued_for:.0f} s" for call in running[:_MOST]]
        log.warning(
            "queue wt:%s: %s has waited for %.0f s, %d calls wait; workers run %s; start more if this lasts",
            self._name,
            call_id,
            age,
            queued,
            (", ".join(told) or "nothing") + (", and more" if len(running) > _MOST else ""),
        )
