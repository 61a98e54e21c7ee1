"""A spare process: loaded, and waiting to take the place of another."""

from __future__ import annotations

import os
import signal
from types import FrameType


class _ToldToEnd(BaseException):
    pass


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _ToldToEnd


def comes_to_its_turn(turn_fd: int) -> bool:
    """Wait until the pool needs this process; False: it was told to end."""
    try:
        before = signal.signal(signal.SIGTERM, _stop)
        needed = os.read(turn_fd, 1) == b"1"
        signal.signal(signal.SIGTERM, before)
    except _ToldToEnd:
        return False
    os.close(turn_fd)
    return needed
