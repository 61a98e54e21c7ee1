"""Loops that try, or look, again: until it works, until a deadline, or until we stop."""

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
    """Repeat an idempotent action until it raises none of `errors`; return what it returned.

    Args:
        action: the function to call.
        errors: the exceptions after which it is tried again.
        pause: seconds between two tries.
        seconds: for how long to go on after the first failure.
        deadline: until when to go on, on the monotonic clock.
        stopped: asked after each failure; True ends the tries.
        failed: called with each error that another try follows; may raise, to end the tries.
        sleep: called with the pause, by default `time.sleep`; a `wait` can end it early.

    Raises:
        The last error, when time is up or `stopped` says so.
    """
    while True:
        try:
            return action()
        except errors as error:
            now = time.monotonic()
            # Counted from the first failure: a silent server is noticed only after seconds.
            deadline = min(deadline, now + seconds)
            if now >= deadline or stopped():
                raise
            failed(error)
        # Not as the parameter's default: gevent may replace `time.sleep` after this was imported.
        (sleep or time.sleep)(pause)


def until(
    look: Callable[[], T],
    *,
    pause: float,
    seconds: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
) -> T:
    """Call `look` until it returns something true; return what it returned last.

    Args:
        look: the function to call.
        pause: seconds between two looks.
        seconds: for how long to go on looking.
        stopped: asked after each look that found nothing; True ends the looks.
    """
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline and not stopped():
        time.sleep(pause)
    return found
