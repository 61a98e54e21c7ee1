"""A time limit for commands to Redis, for callers that cannot wait for `SOCKET_TIMEOUT`.

A request's wait must end on time, whether Redis answers or not. `within` limits all commands in its block,
including connecting, and waiting for a free connection.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Seconds past the limit for which a command that was already sent may still wait for its reply.
LATE_SECONDS = 2.0

# A context variable, so one value per thread or greenlet: commands are sent many calls below `within`.
_until = ContextVar("until", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the commands to Redis in this block to `seconds` in all; after that they raise `Silent`.

    A command that has begun in time has `LATE_SECONDS` more, so that none is cut off while it is sent.
    """
    token = _until.set(min(_until.get(), time.monotonic() + max(seconds, 0.0) + LATE_SECONDS))
    try:
        yield
    finally:
        _until.reset(token)


def seconds_left(most: float) -> float:
    """Return how many seconds a command may take from now on, `most` at most; may be negative."""
    until = _until.get()
    return most if until == math.inf else min(most, until - time.monotonic())
