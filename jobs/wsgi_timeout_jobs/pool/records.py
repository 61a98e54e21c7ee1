"""Reads in a running call's record whether it has ended or runs elsewhere, or its response has no reader."""

from __future__ import annotations

from contextlib import suppress

from wsgi_timeout.store.messages import ResponseHead
from wsgi_timeout.store.record import Outcome
from wsgi_timeout_jobs.process.board import Running

#: How a call ends that was not ended by its own worker.
_ENDED_ELSEWHERE = {Outcome.CANCELLED.encode(), Outcome.TIMEOUT.encode(), Outcome.LOST.encode()}
#: Seconds for which a web process may say nothing of the streams that it reads; it does so every second.
SILENT_SECONDS = 5.0


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
