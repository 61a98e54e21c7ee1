"""Waiting for a call: until its response can begin, or the wait is over."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from wsgi_timeout.errors import CallUnknown
from wsgi_timeout.front.places import Seat
from wsgi_timeout.front.process import Runtime
from wsgi_timeout.store.record import Outcome, Snapshot
from wsgi_timeout.store.redis_errors import UNAVAILABLE
from wsgi_timeout.store.streams import StreamReader
from wsgi_timeout.store.time_limit import within

#: Seconds between two tries while Redis is away.
RETRY_SECONDS = 0.5


class ClientGone(Exception):
    """The client closed its connection while it waited."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A call whose response can begin: it has ended, or its stream has first bytes."""

    snapshot: Snapshot
    reader: StreamReader | None
    first: list[bytes]


def wait(runtime: Runtime, seat: Seat, seconds: float, *, look_first: bool) -> Ready | None:
    """Block until the response of the seat's call can begin; None when time is up, or the process stops.

    The end of the wait does not depend on Redis: it may be away or cut off by then.

    Raises:
        ClientGone: the client has disconnected.
        CallUnknown: the call's record has expired or was deleted.
    """
    listener, waiter = runtime.listener, seat.waiter
    deadline = time.monotonic() + seconds
    while True:
        if waiter.carried and (carried := Snapshot.carried(waiter.carried)):
            return Ready(carried, None, [])
        if look_first and not listener.away:
            waiter.reset()
            with within(deadline - time.monotonic()):
                ready = _look(runtime, seat)
            if ready:
                return ready
        # A reload that has come in wakes a wait whose client it may be: see `first_waits`.
        if waiter.gone or (look_first and waiter.has_left()):
            raise ClientGone
        remaining = deadline - time.monotonic()
        if remaining <= 0 or listener.draining:
            return None
        # Look only after a wake: for a wake that was lost, the listener looks every two seconds.
        look_first = waiter.wait(remaining)
        if listener.away:
            waiter.reset()


def call_state(runtime: Runtime, seat: Seat) -> str:
    """Return "queued" or "running" for a call that has not ended; "running" if Redis cannot tell now."""
    if not seat.waiter.running and not runtime.listener.away:
        # If it was running at the listener's last look, Redis need not be asked.
        with suppress(*UNAVAILABLE), within(0.0):
            return "queued" if runtime.calls.look(seat.waiter.call_id).state == "queued" else "running"
    return "running"


def _look(runtime: Runtime, seat: Seat) -> Ready | None:
    calls, call_id = runtime.calls, seat.waiter.call_id
    try:
        snapshot = calls.look(call_id)
        if snapshot.state is None:
            raise CallUnknown("this call is not known (any more)")
        seat.waiter.looked(running=snapshot.state == "running")
        in_stream = snapshot.head is not None and snapshot.body is None
        if snapshot.ended and not (in_stream and snapshot.outcome in {Outcome.DONE, Outcome.BROKEN}):
            return Ready(snapshot, None, [])
        if not in_stream:
            return None
        # Reading the first byte fixes the response to this attempt; before that it may be run again.
        reader = calls.reader(call_id, runtime.listener.inbox, snapshot)
        first = reader.poll()
    except UNAVAILABLE:
        seat.waiter.wait(RETRY_SECONDS)
        return None
    if reader.missing and snapshot.ended:
        raise CallUnknown("the body of this result is not kept any more")
    return Ready(snapshot, reader, first) if first or reader.end else None
