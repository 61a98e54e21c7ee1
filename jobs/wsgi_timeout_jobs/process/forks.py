"""Processes that a handler forks: they end as any child does, and none becomes a second worker."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress

from wsgi_timeout.current import in_fork

#: What a worker handles, and its parent sends.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)

_mask = threading.local()


def install() -> None:
    """Have the processes that this one forks take signals as new ones do.

    Else multiprocessing could not terminate them: a worker notes a SIGTERM, and goes on.
    """
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_reset)


def _hold() -> None:
    # One that comes right after the fork must find the child's own way to take it.
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _reset() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    _release()


def end_here(error: BaseException | None = None) -> None:
    """End this process if a handler has forked it: it has left the handler, by `error` if there is one.

    The worker alone answers, and takes calls.
    """
    if not in_fork():
        return
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # nobody may read them any more
            stream.flush()
    os._exit(code)
