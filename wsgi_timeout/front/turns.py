"""Turns at Redis: a few requests of a process ask it at a time, the others wait in line."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from wsgi_timeout.watching.sleep import GreenletSleep, Sleep, are_greenlets, new_sleep


class Turns:
    """A semaphore without a lock of its own, whose waiters sleep as those do who wait for a response.

    In a greenlet every wait then keeps about as much of the stack. What one wait gives back to the allocator
    fits the next one: waits of several sizes left holes of 2 KB beside each of 10,000 waiters.
    """

    def __init__(self, count: int) -> None:
        # A list and a deque, of which each operation is atomic.
        self._free = [None] * count
        self._line: deque[Sleep] = deque()

    def acquire(self, timeout: float = math.inf) -> bool:
        """Block until it is this thread's turn; return False if it was not within `timeout` seconds."""
        if not self._line:
            try:
                self._free.pop()
            except IndexError:
                pass
            else:
                return True
        sleep = new_sleep()
        self._line.append(sleep)
        try:
            self._give_out()
            if sleep.wait(timeout):
                return True
        except BaseException:
            if not self._has_left(sleep):
                self.release()
            raise
        return not self._has_left(sleep)

    def release(self) -> None:
        """Give the turn to who waits longest."""
        self._free.append(None)
        self._give_out()

    def _give_out(self) -> None:
        # Called after each change of either: whoever makes the last one sees both.
        while self._free and self._line:
            try:
                self._free.pop()
            except IndexError:
                return
            try:
                sleep = self._line.popleft()
            except IndexError:
                self._free.append(None)
            else:
                sleep.wake()

    def _has_left(self, sleep: Sleep) -> bool:
        """Leave the line; return False if the turn came just now."""
        try:
            self._line.remove(sleep)
        except ValueError:
            return False
        return True

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Turn:
    """One request's turn, which it may take before it needs it: who stands in line early holds little."""

    __slots__ = ("_held", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._held = False

    def take(self) -> None:
        """Block until it is this request's turn, unless it is already."""
        if not self._held:
            self._turns.acquire()
            self._held = True

    def give_back(self) -> None:
        """Let others have it, unless that was done."""
        if self._held:
            self._held = False
            self._turns.release()


def apart(action: Callable[..., Any], args: tuple[Any, ...], turn: Turn) -> Any:
    """Call `action` in the request's turn, which ends with it; return what it returns.

    A request in a greenlet waits meanwhile, and the call is made on another one's stack: a greenlet keeps
    the 4 KiB pages of its frames until it ends, and one deep call costs each of 10,000 waiters a page more.
    """
    turn.take()
    if not are_greenlets():
        try:
            return action(*args)
        finally:
            turn.give_back()
    import gevent  # noqa: PLC0415 - only where it is used anyway

    sleep = GreenletSleep()
    answer: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(action(*args))
        except BaseException as error:  # noqa: BLE001 - raised below, which would wait for ever
            errors.append(error)
        turn.give_back()
        sleep.wake()

    gevent.spawn_raw(copy_context().run, run)
    sleep.wait(math.inf)
    if errors:
        raise errors.pop()
    return answer.pop()
