"""Ends a process as another one has ended, so that its parent is told how."""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import suppress
from typing import NoReturn


def end_as(code: int) -> NoReturn:
    """End this process with an exit code, or by a signal if `code` is negative; nothing of its own runs."""
    if code >= 0:
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the other process has left one
    with suppress(ValueError, OSError):  # not in the main thread; no handler can be set for this signal
        signal.signal(-code, signal.SIG_DFL)
    ends = signal.getsignal(-code) is signal.SIG_DFL
    os.kill(os.getpid(), -code if ends else signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit  # not reached
