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
    deadline: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
    failed: Callable[[Exception], object] = lambda _: None,
    sleep: Callable[[float], object] | None = None,
) -> T:
    """Repeat what may be done twice until it raises none of `errors`; return what it returned.

    Args:
        action: what is tried.
        errors: the exceptions after which it is tried again.
        pause: seconds between two tries.
        seconds: for how long to go on after the first failure.
        deadline: until when to go on, on the monotonic clock.
        stopped: asked after each failure; True ends the tries.
        failed: told each error that is followed by another try; may raise, to end the tries.
        sleep: what spends the pause, as the `wait` of something that can be woken; by default `time.sleep`.

    Raises:
        The last error, when time is up or `stopped` says so.
    """
    while True:
        try:
            return action()
        except errors as error:
            now = time.monotonic()
            # From here on: that a server is silent is known after seconds only.
            deadline = min(deadline, now + seconds)
            if now >= deadline or stopped():
                raise
            failed(error)
        # Looked up here: gevent may have replaced it since this was imported.
        (sleep or time.sleep)(pause)


def until(
    look: Callable[[], T],
    *,
    pause: float,
    seconds: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
) -> T:
    """Repeat a look until it finds something true; return what the last look found.

    Args:
        look: what is asked.
        pause: seconds between two looks.
        seconds: for how long to go on looking.
        stopped: asked after each look that found nothing; True ends the looks.
    """
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline and not stopped():
        time.sleep(pause)
    return found
