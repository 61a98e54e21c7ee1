"""The one loop of "try again until it works, or until a deadline, or until we stop"."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def retry(
    action: Callable[[], T],
    errors: tuple[type[Exception], ...],
    *,
    pause: float,
    seconds: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
    failed: Callable[[Exception], None] = lambda _: None,
) -> T:
    """Repeat what may be done twice until it raises none of `errors`; return what it returned.

    `pause` is the time between two tries, `seconds` for how long to go on after the first failure;
    both in seconds. `failed` is told each error. Raises the last error when time is up, or as soon as
    `stopped` says so.
    """
    deadline = math.inf
    while True:
        try:
            return action()
        except errors as error:
            # From here on: that a server is silent is known after seconds only.
            deadline = min(deadline, time.monotonic() + seconds)
            if time.monotonic() >= deadline or stopped():
                raise
            failed(error)
        time.sleep(pause)
