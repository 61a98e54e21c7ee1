"""Turns at Redis: a few requests of a process ask it at a time, the others wait in line."""

from __future__ import annotations

import math
import queue
import sys
from collections.abc import Callable
from contextvars import copy_context
from typing import Any


class Turns:
    """A semaphore on a queue: that of `threading` is Python, and takes more time, and more of the stack."""

    def __init__(self, count: int) -> None:
        # Looked up now: gevent may have replaced it after this module was imported.
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    def acquire(self, timeout: float = math.inf) -> bool:
        """Block until it is this thread's turn; return False if it was not within `timeout` seconds."""
        try:
            self._free.get(timeout=None if timeout == math.inf else timeout)
        except queue.Empty:
            return False
        return True

    def release(self) -> None:
        self._free.put(None)

    def __enter__(self) -> None:
        self._free.get()

    def __exit__(self, *_: object) -> None:
        self._free.put(None)


def apart(action: Callable[..., Any], *args: Any) -> Any:
    """Call `action` on another stack than that of the request, which goes on waiting, if that is a greenlet.

    A greenlet keeps the 4 KiB pages of its frames until it ends: one deep call costs each of 10,000 waiters
    a page more. To be called by a few at a time.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return action(*args)
    import gevent  # noqa: PLC0415 - only where it is used anyway
    from gevent.event import AsyncResult  # noqa: PLC0415

    answer = AsyncResult()

    def run() -> None:
        try:
            answer.set(action(*args))
        except BaseException as error:  # noqa: BLE001 - raised by `get`, which would wait for ever
            answer.set_exception(error, sys.exc_info())

    gevent.spawn_raw(copy_context().run, run)
    return answer.get()
