"""Reads in a running call's record whether it has ended or runs elsewhere, or its response has no reader."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import redis

from wsgi_timeout.store import keys
from wsgi_timeout.store.messages import ResponseHead
from wsgi_timeout.store.record import Outcome
from wsgi_timeout_jobs.pool.children import Children
from wsgi_timeout_jobs.pool.deadlines import Deadlines
from wsgi_timeout_jobs.process.board import Running

_Fields = list[bytes | None]

#: Seconds between two checks.
_CHECK_SECONDS = 2.0
#: How a call ends that was not ended by its own worker.
_ENDED_ELSEWHERE = {Outcome.CANCELLED.encode(), Outcome.TIMEOUT.encode(), Outcome.LOST.encode()}
#: Seconds for which a web process may say nothing of the streams that it reads; it does so every second.
SILENT_SECONDS = 5.0


class Records:
    """Checks the records of the calls that a pool's children run."""

    def __init__(
        self, client: redis.Redis, children: Children, deadlines: Deadlines, *, patience: float
    ) -> None:
        """`patience`: for how many seconds an endless response may have no reader."""
        self._redis: Any = client  # redis-py's annotations know no bytes
        self._children = children
        self._deadlines = deadlines
        self._patience = patience
        #: Since when Redis has answered each time, on the monotonic clock.
        self._unbroken_since = time.monotonic()
        #: The attempts that ran at the last check.
        self._ran: set[tuple[str, int]] = set()
        self._next = 0.0

    def note_away(self) -> None:
        """Note that Redis did not answer: for a while a silent reader proves nothing."""
        self._unbroken_since = time.monotonic()

    def check(self) -> None:
        """Interrupt handlers whose call has ended or runs elsewhere: the message about it may be lost."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _CHECK_SECONDS
        # After a call's response was recorded its handler may go on, and its record may be deleted.
        there = [(child, running) for child, running in self._children.running() if not running.recorded]
        long = [(child, running) for child, running in there if running.attempt_of in self._ran]
        self._ran = {running.attempt_of for _, running in there}
        if not long:
            return
        found, seconds = self._read([running for _, running in long])
        for (child, running), (record, stream) in zip(long, found, strict=True):
            if running not in child.board.running():
                continue
            if ended_elsewhere(running, record):
                self._deadlines.interrupt(child, running, Outcome.CANCELLED, ended=True)
            elif stream[1] and now - self._unbroken_since < 2 * SILENT_SECONDS:
                pass  # its web process may be coming back to Redis as well
            elif is_left(record[3], stream, seconds, self._patience):
                # The handler's next write is then refused; without one the next check interrupts it.
                self._deadlines.record(
                    child, running, Outcome.CANCELLED, "nobody reads its response any more"
                )

    def _read(self, calls: list[Running]) -> tuple[list[tuple[_Fields, _Fields]], int]:
        """Return the fields of each call's record and of its response, and Redis' clock in seconds."""
        pipe = self._redis.pipeline(transaction=False)
        for running in calls:
            pipe.hmget(keys.call(running.call_id), "state", "attempt", "outcome", "head")
            body = keys.response_body(running.call_id, running.attempt)
            pipe.hmget(body, "left", "readers", "window", "seen", "marked")
        pipe.time()
        *found, (seconds, _) = pipe.execute()
        return list(zip(found[::2], found[1::2], strict=True)), seconds


def ended_elsewhere(running: Running, record: list[bytes | None]) -> bool:
    """Whether others ended a call, or run it again, by its record's state, attempt and outcome."""
    state, attempt, outcome = record[:3]
    return (state == b"ended" and outcome in _ENDED_ELSEWHERE) or attempt != b"%d" % running.attempt


def is_left(head: bytes | None, stream: list[bytes | None], now: float, patience: float) -> bool:
    """Whether a response without an announced end had no reader for `patience` seconds.

    One that can be resumed waits for its own window, and some seconds more where its reader did not say that
    it leaves: its web process was killed. `now` is Redis' clock; `stream` holds the fields `left`, `readers`,
    `window`, `seen` and `marked` of the response's body.
    """
    left, readers, window, seen, marked = stream
    if readers:
        left = seen or marked
    if not head or not left or not left.isdigit():
        return False
    with suppress(ValueError):
        patience = float(window or patience) + (SILENT_SECONDS if readers else 0.0)
    if not int(left) + patience < now:  # not a number is no patience either
        return False
    return all(name.lower() != "content-length" for name, _ in ResponseHead.unpack(head).headers)
