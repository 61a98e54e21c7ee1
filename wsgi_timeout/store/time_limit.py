"""How long commands may take, for who has less time than a silent server is given.

A wait that is over must end then, whether Redis answers or not. What it is asked meanwhile, and the
connecting, and standing in line for a connection, have until a moment that is set here by `within`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Seconds after the end of a wait in which a command that was begun before may still be answered.
LATE_SECONDS = 2.0

# Of a context, as a thread or a greenlet has: the commands lie many calls deeper than who waits.
_until = ContextVar("until", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let commands to Redis in this block take `seconds` in all; after that they raise a timeout.

    What is begun in the last moment has `LATE_SECONDS` more: it is never cut off as it is sent.
    """
    token = _until.set(min(_until.get(), time.monotonic() + max(seconds, 0.0) + LATE_SECONDS))
    try:
        yield
    finally:
        _until.reset(token)


def seconds_left(most: float) -> float:
    """Return how many seconds a command may take from now on, at most `most`; may be negative."""
    until = _until.get()
    return most if until == math.inf else min(most, until - time.monotonic())
