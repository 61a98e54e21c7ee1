"""Raising in a handler that ran too long or was cancelled, at a moment when it is safe.

The pool's parent leaves a reason on the board and sends `SIGNAL`. With one thread the handler runs in
the main thread, where Python runs signal handlers: it raises `CallInterrupted` there, unless a command
to Redis is under way, whose connection would be left with half a reply; then right after it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from wsgi_timeout.errors import CallInterrupted
from wsgi_timeout.functions.client import shield_with

#: Not SIGALRM nor SIGUSR1: apps use those.
SIGNAL = signal.SIGUSR2

_installed: Interrupts | None = None


class Interrupts:
    """The interrupts of one process's main thread."""

    def __init__(self, reason: Callable[[], str]) -> None:
        """`reason` returns what the parent left for the running call, empty for nothing."""
        self._reason = reason
        #: Where to pass an interrupt on to, with its reason, for as long as another process runs the handler.
        self.pass_to: Callable[[str], None] | None = None
        self._armed = False
        self._shields = 0

    def install(self) -> None:
        global _installed  # noqa: PLW0603 - signals are the process's
        _installed = self
        signal.signal(SIGNAL, self._handle)
        shield_with(self.shield)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Allow interrupts while a handler runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._armed = True
        try:
            # The parent may know of the call for a moment already.
            self._raise_if_asked()
            yield
        finally:
            self._armed = False

    @contextmanager
    def disarmed(self) -> Iterator[None]:
        """Allow none while an outcome that is known is recorded; one that came is raised after it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before, self._armed = self._armed, False
        try:
            yield
        except CallInterrupted:
            before = False  # one is enough
            raise
        finally:
            self._armed = before
        self._raise_if_asked()

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold interrupts back until the block is done; other threads than the main one get none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            # Also when the command failed: it will be repeated, or waited for.
            self._raise_if_asked()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self._armed and not self._shields and (reason := self._reason()):
            self._armed = False
            if self.pass_to is None:
                raise CallInterrupted(reason)
            self.pass_to(reason)


def installed() -> Interrupts | None:
    """Return those of this process; None where handlers run in threads."""
    return _installed


def ignore(*_: object) -> None:
    """Do nothing at a signal: what a program is told to ignore, the programs that it starts ignore too."""
