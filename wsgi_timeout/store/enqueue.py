"""How a call is queued: one script writes its record, RQ's job and the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import redis

from wsgi_timeout.errors import BytesFull, NoWorker, QueueFull, QueuePaused, RedisUnavailable
from wsgi_timeout.store import keys, rq_state, seals
from wsgi_timeout.store.connection import SOCKET_TIMEOUT
from wsgi_timeout.store.messages import CallRequest, FunctionRequest
from wsgi_timeout.store.queue import Queue
from wsgi_timeout.store.record import IDEMPOTENT, NewCall, Outcome, now_ms

#: Seconds added to a record's TTL for the time between its runs: lost leases, retries, outages.
_SPARE_SECONDS = 600.0

#: Milliseconds after sending in which Redis may still accept a call: less than its sender waits for a reply.
_ACCEPTED_MS = int(SOCKET_TIMEOUT * 1000) - 500
#: Seconds that the end of a call is kept that was refused.
_WITHDRAWN_SECONDS = 60.0


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class FirstWaitNoted(Exception):
    """There is a note of such a request: its call may be one that was left, see `store.first_waits`."""


class Enqueueing(Queue):
    """Queues calls of one name, and takes back what is refused afterwards."""

    def __init__(self, client: redis.Redis, name: str, send: Callable[..., Any] | None = None) -> None:
        super().__init__(client, name, send)
        #: How many ms Redis' clock is ahead of our monotonic clock; None: to be asked.
        self._ahead_ms: int | None = None

    def enqueue(self, call: NewCall, inbox: str = "") -> None:
        """Queue a call.

        Raises `NoWorker`, `QueueFull`, `BytesFull` or `FirstWaitNoted` if it was not accepted.
        """
        scripts = self.synced if call.durable else self.scripts
        request = call.request
        packed = request.pack()
        values = [*self._values(call, packed), *self._more(call, packed, inbox)]
        # Longer than it may wait and run: its record must live until its end was recorded.
        runs = call.max_attempts + (request.retries if isinstance(request, FunctionRequest) else 0)
        ttl = int(runs * (call.queue_ttl + request.timeout + _SPARE_SECONDS))
        if call.left:
            ttl = min(ttl, keys.LEFT_TTL)
        touched = [keys.call(call.id), self._queue, rq_state.job_key(call.id), self._leases]
        touched += [self._sequence, self.buffered, call.first_wait or keys.call(call.id)]
        if call.payload_key:
            touched.append(call.payload_key)
        for _ in range(2):
            head = [call.id, call.max_queued, ttl, int(call.needs_worker), self._last_moment()]
            head += [
                call.max_buffered_bytes,
                len(packed) + call.payload_bytes,
                int(call.untold_seconds * 1000),
                int(call.abandon_after * 1000),
            ]
            answer = scripts.run("enqueue", touched, [*head, *values])
            if answer != b"late":
                break
            # Redis' clock may have been changed.
            self._ahead_ms = None
        else:
            raise RedisUnavailable("Redis took too long to accept the call")
        self._check(answer, call)

    def _values(self, call: NewCall, packed: bytes) -> list[Any]:
        """Return the values that every call has, in the script's order; `packed` is its request."""
        created, queue_ms = now_ms(), int(call.queue_ttl * 1000)
        return [
            call.token,
            call.path.encode(),
            call.method,
            packed,
            created,
            call.max_attempts,
            queue_ms,
            created + queue_ms,
            int(call.method in IDEMPOTENT),
            int(call.request.result_ttl),
            *rq_state.job_values(call.id, f"{call.method} {call.path}", call.request.timeout),
        ]

    def _more(self, call: NewCall, packed: bytes, inbox: str) -> Iterator[Any]:
        """Yield names and values of the record's other fields."""
        if not call.payload_key:
            yield from ("bytes", len(packed))
        for item in call.origin.fields().items():
            yield from item
        # A function's arguments carry a signature of their own.
        if isinstance(call.request, CallRequest) and (seal := seals.seal(packed, call.id, self.name)):
            yield from ("seal", seal)
        if inbox:
            yield from ("inboxes", inbox)
        if call.durable:
            yield from ("durable", 1)
        if call.abandon_after:
            yield from ("abandon", int(call.abandon_after * 1000))

    def _check(self, answer: bytes, call: NewCall) -> None:
        """Raise the error that says why a call was not accepted."""
        if answer == b"noted":
            raise FirstWaitNoted
        if answer == b"no worker":
            raise NoWorker(
                f"no live worker serves {self.name!r}: start one with `wsgi-timeout worker TARGET`"
            )
        if answer == b"lost":
            raise RedisUnavailable("Redis has lost what was to be sent with the call")
        if answer == b"paused":
            raise QueuePaused(
                f"{call.max_queued} calls wait for a worker of {self.name!r} already, and an operator has "
                f"paused them: `wsgi-timeout resume {self.name}`, or `rq resume`, ends that"
            )
        if answer == b"full":
            raise QueueFull(f"{call.max_queued} calls wait for a worker of {self.name!r} already")
        if answer == b"no room":
            raise BytesFull(
                f"requests and results of {self.name!r} use max_buffered_bytes already, "
                f"{call.max_buffered_bytes} bytes"
            )

    def _last_moment(self) -> int:
        """Return until when, in ms of Redis' clock, a command sent now may be executed."""
        # Not by our wall clock: if it were set forward, the limit would be too late.
        ahead_ms = self._ahead_ms
        if ahead_ms is None:
            seconds, microseconds = self._send("TIME")
            ahead_ms = int(seconds) * 1000 + int(microseconds) // 1000 - _monotonic_ms()
            self._ahead_ms = ahead_ms
        return _monotonic_ms() + ahead_ms + _ACCEPTED_MS

    def withdraw(self, call_id: str) -> None:
        """End a call that was not on disk in time, and is refused; one that has begun meanwhile goes on."""
        detail = "it was not on disk in time, and refused"
        self.end(call_id, Outcome.CANCELLED, detail, _WITHDRAWN_SECONDS, attempt=0)
