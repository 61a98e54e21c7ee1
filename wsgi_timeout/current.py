"""The call that runs here, for a handler that wants to know or to report progress."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

#: The environ key under which a handler finds its `RunningCall`.
ENVIRON_KEY = "wsgi_timeout.call"

#: The environ key that a host sets which runs an app in place: fronts in that app do so too.
IN_PLACE_KEY = "wsgi_timeout.in_place"


@dataclass(frozen=True, slots=True)
class RunningCall:
    """One attempt of a call, as its handler sees it."""

    id: str
    #: 1 for the first run.
    attempt: int
    report: Callable[[dict[str, Any]], None]


#: The id of this process if it is a worker, or of the worker that has forked it; else 0.
_worker = 0


def enter_worker() -> None:
    """Make this process a worker: fronts that are built in it run their app in place."""
    global _worker  # noqa: PLW0603 - a process becomes one once, before it loads the app
    _worker = os.getpid()


#: The queue whose calls this process takes; empty outside workers.
_queue = ""
_slots = 0


def serve_queue(name: str, slots: int) -> None:
    """Note that this process takes the calls of queue `wt:<name>`, and its pool so many at a time."""
    global _queue, _slots
    _queue, _slots = name, slots


def current_queue() -> str:
    return _queue


def current_slots() -> int:
    return _slots


def in_worker() -> bool:
    return _worker != 0


def in_fork() -> bool:
    """Whether an app has forked this process from a worker."""
    return _worker not in {0, os.getpid()}


#: Characters of a message of progress that are kept.
_LONGEST_MESSAGE = 1000

running: ContextVar[RunningCall | None] = ContextVar("wsgi_timeout_running", default=None)


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Report how far the current call is.

    It is shown on the call's status URL and by `FunctionCall.status`. Works from anywhere in a handler or
    a function; outside a call it does nothing.

    Args:
        done: how much is done, in any unit of yours.
        total: how much there is to do, in the same unit; None if it is not known.
        message: what is being done, for people; of a longer one the first 1,000 characters.

    Numbers may be of any type that `int()` or `float()` takes, as Decimal and numpy's are; what cannot be
    shown is left out, and never ends the handler.
    """
    call = running.get()
    if call is not None:
        call.report({"done": _number(done), "total": _number(total), "message": _text(message)})


def _number(value: object) -> float | None:
    """Return a number as JSON has it, of whatever kind it is; None for what is none."""
    try:
        try:
            whole = operator.index(value)  # type: ignore[arg-type]
            return whole if math.isfinite(whole) else None
        except TypeError:
            number = float(value)  # type: ignore[arg-type]
            return number if math.isfinite(number) else None
    except Exception:  # noqa: BLE001 - a type of the app's own may raise anything
        return None


def _text(value: object) -> str:
    try:
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
        return text.encode(errors="replace").decode()[:_LONGEST_MESSAGE]
    except Exception:  # noqa: BLE001 - as above
        return ""
