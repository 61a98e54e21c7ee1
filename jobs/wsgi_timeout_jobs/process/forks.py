"""Processes that a handler forks: they end as other children do, and must not act as a second worker."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress

from wsgi_timeout.current import in_fork

#: Signals for which a worker has handlers.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)

_mask = threading.local()


def install() -> None:
    """Reset the signal handlers of processes that this one forks.

    Otherwise multiprocessing could not terminate them: a worker's SIGTERM handler only sets a flag.
    """
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_reset)


def _hold() -> None:
    # A signal right after the fork must not run the worker's handler in the child.
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _reset() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    _release()


def end_here(error: BaseException | None = None) -> None:
    """End this process if a handler has forked it; `error`: what the handler's code raised in it.

    It has left the handler's code, and only the worker may answer the call and take others.
    """
    if not in_fork():
        return
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # they may be closed
            stream.flush()
    os._exit(code)
