"""A spare process: it has loaded the app, and waits to take the place of another process."""

from __future__ import annotations

import os
import signal
from types import FrameType


class _ToldToEnd(BaseException):
    pass


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _ToldToEnd


def comes_to_its_turn(turn_fd: int) -> bool:
    """Block until the pool needs this process; return False if it is to end instead."""
    try:
        before = signal.signal(signal.SIGTERM, _stop)
        needed = os.read(turn_fd, 1) == b"1"
        signal.signal(signal.SIGTERM, before)
    except _ToldToEnd:
        return False
    os.close(turn_fd)
    return needed
