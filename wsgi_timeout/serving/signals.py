"""The signals that `serve` takes, as process managers and people send them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

from wsgi_timeout.terminal import has_terminal

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


class Signals:
    """What signals have asked for; a pipe wakes a `select`.

    INT, TERM and QUIT stop all in order, a second one at once. HUP loads the app anew, or is a stop
    if the terminal was closed. USR1 has gunicorn open its logs anew. USR2, with which gunicorn starts a new
    master, does nothing: the embedded server cannot have two owners.
    """

    def __init__(self) -> None:
        self.stop = False
        #: Do not wait for running calls.
        self.hurry = False
        self.reload = False
        self.reopen = False
        self.pipe, self._write = os.pipe()
        os.set_blocking(self.pipe, False)
        os.set_blocking(self._write, False)
        self._had_terminal = has_terminal()
        for number in _STOPS:
            signal.signal(number, self._ask)
        # Under `nohup` it is ignored, and stays so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._hang_up)
        signal.signal(signal.SIGUSR1, self._open_logs)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def clear(self) -> None:
        """Empty the pipe after a wake."""
        with suppress(BlockingIOError):
            os.read(self.pipe, 4096)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.hurry = self.hurry or self.stop
        self.stop = True
        self._wake()

    def _hang_up(self, _number: int, _frame: FrameType | None) -> None:
        if self._had_terminal and not has_terminal():
            # The kernel and the shell may each send one: a second one does not hurry.
            self.stop = True
        else:
            self.reload = True
        self._wake()

    def _open_logs(self, _number: int, _frame: FrameType | None) -> None:
        self.reopen = True
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._write, b".")
