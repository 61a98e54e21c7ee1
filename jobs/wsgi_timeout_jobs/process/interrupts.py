"""Raises an exception in a handler that ran too long or was cancelled, when that is safe.

The pool writes the reason to the board and sends `SIGNAL`. With one thread per process the app's handler
runs in the main thread, where Python runs signal handlers: ours raises `CallInterrupted` there. During a
command to Redis it waits until the command is done, since half a reply would be left in the connection.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from wsgi_timeout.current import shield_with
from wsgi_timeout.errors import CallInterrupted

#: Not SIGALRM nor SIGUSR1: apps use those.
SIGNAL = signal.SIGUSR2

_installed: Interrupts | None = None


class Interrupts:
    """The interrupts of one process's main thread."""

    def __init__(self, reason: Callable[[], str]) -> None:
        """`reason` returns why the pool interrupts the running call; empty: it does not."""
        self._reason = reason
        #: Called with the reason in place of raising, while another process runs the handler; else None.
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
        """Allow interrupts during a `with` block, in which a handler runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._armed = True
        try:
            # The pool may have interrupted the call before this.
            self._raise_if_asked()
            yield
        finally:
            self._armed = False

    @contextmanager
    def disarmed(self) -> Iterator[None]:
        """Allow no interrupts while an outcome is recorded; one that came meanwhile is raised afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before, self._armed = self._armed, False
        try:
            yield
        except CallInterrupted:
            before = False  # a handler is interrupted only once
            raise
        finally:
            self._armed = before
        self._raise_if_asked()

    def shield(self) -> AbstractContextManager[None]:
        """Hold interrupts back until the end of the `with` block. Only the main thread is interrupted."""
        return _Shield(self)

    def hold_back(self) -> None:
        """Hold interrupts back until `let_through`."""
        self._shields += 1

    def let_through(self) -> None:
        """End one `hold_back`; raises what was held back."""
        self._shields -= 1
        self._raise_if_asked()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self._armed and not self._shields and (reason := self._reason()):
            self._armed = False
            if self.pass_to is None:
                raise CallInterrupted(reason)
            self.pass_to(reason)


class _Shield:
    """What `Interrupts.shield` returns: no generator, since there are several for each call."""

    __slots__ = ("_interrupts", "_is_main")

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._interrupts.hold_back()

    def __exit__(self, *_: object) -> None:
        if self._is_main:
            # Also if the command has failed: its caller would repeat it.
            self._interrupts.let_through()


def installed() -> Interrupts | None:
    """Return the interrupts of this process; None if handlers run in threads."""
    return _installed


def ignore(*_: object) -> None:
    """Do nothing, as a signal handler; unlike SIG_IGN, programs that we start do not inherit this."""
