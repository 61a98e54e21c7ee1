"""How a waiter sleeps until it is woken: a thread on a lock, a greenlet on its event loop."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Protocol


class Sleep(Protocol):
    """Ends at a wake, also at one that came before it began."""

    def wait(self, seconds: float) -> bool:
        """Block until the next wake, `seconds` at most; return whether there was one."""

    def wake(self) -> None: ...

    def reset(self) -> None:
        """Forget earlier wakes."""


class ThreadSleep:
    """A lock that is released at each wake: an Event would take 2 KB, for each of thousands of waiters."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float) -> bool:
        return self._lock.acquire(timeout=max(0.0, min(seconds, threading.TIMEOUT_MAX)))

    def wake(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            return  # the lock is free: it was woken already

    def reset(self) -> None:
        self._lock.acquire(blocking=False)


class GreenletSleep:
    """Sleeps in gevent's hub itself: gevent's own lock takes 1.6 KB more for each greenlet that waits."""

    __slots__ = ("_hub", "_sleeper", "_woken")

    def __init__(self) -> None:
        self._woken = False
        #: The hub and the greenlet of whoever sleeps.
        self._hub: Any = None
        self._sleeper: Any = None

    def wait(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        # A second wake may resume the next sleep, which was not woken.
        while not self._woken and (left := deadline - time.monotonic()) > 0:
            self._sleep(left)
        woken, self._woken = self._woken, False
        return woken

    def _sleep(self, seconds: float) -> None:
        # Not `from`, which calls a function of Python's on the stack that is kept.
        import gevent  # noqa: PLC0415 - only where it is used anyway

        self._hub = hub = gevent.get_hub()
        timer = hub.loop.timer(seconds) if seconds < threading.TIMEOUT_MAX else None
        self._sleeper = gevent.getcurrent()
        try:
            if timer:
                timer.start(self._resume)
            if not self._woken:  # by a native thread, just now
                hub.switch()
        finally:
            self._sleeper = None
            if timer:
                timer.close()

    def wake(self) -> None:
        if self._woken:
            return  # whoever has set it wakes the sleeper too
        self._woken = True
        if self._sleeper is not None:
            # Also from a native thread, as of gevent's pool.
            self._hub.loop.run_callback_threadsafe(self._resume)

    def _resume(self) -> None:
        if self._sleeper is not None:
            self._sleeper.switch()

    def reset(self) -> None:
        self._woken = False


def are_greenlets() -> bool:
    """Return whether the threads of this process are greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and monkey.is_module_patched("threading")


def new_sleep() -> Sleep:
    """Return a `Sleep` for the threads of this process."""
    return GreenletSleep() if are_greenlets() else ThreadSleep()
