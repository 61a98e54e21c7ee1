"""The call that runs here, for a handler that wants to know or to report progress."""

from __future__ import annotations

import math
import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")

#: The environ key under which a handler finds its `RunningCall`.
ENVIRON_KEY = "wsgi_timeout.call"
#: In the web process: the id of the call that a request became, for access logs.
CALL_ID_KEY = "wsgi_timeout.call_id"

#: The environ key of the call's `progress`, for code that cannot import us.
PROGRESS_KEY = "wsgi_timeout.progress"

#: Set in the environ by a host that runs an app in its own process: fronts inside that app then do so too.
IN_PLACE_KEY = "wsgi_timeout.in_place"


#: How many characters of a progress message are kept.
_LONGEST_MESSAGE = 1000


@dataclass(frozen=True, slots=True)
class RunningCall:
    """One attempt of a call, as its handler sees it."""

    id: str
    #: 1 for the first run.
    attempt: int
    report: Callable[[dict[str, Any]], None]

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Report how far this call is, from any thread: see `wsgi_timeout.progress`."""
        self.report({"done": _number(done), "total": _number(total), "message": _text(message)})


#: The id of this process if it is a worker, or of the worker that has forked it; else 0.
_worker = 0


def enter_worker() -> None:
    """Make this process a worker: fronts that are built in it run their app in place."""
    global _worker  # noqa: PLW0603 - a process becomes one once, before it loads the app
    _worker = os.getpid()


class _Shield:
    """Holds interrupts back; outside workers there are none."""

    hold: Callable[[], AbstractContextManager[None]] = nullcontext


def shield_with(hold: Callable[[], AbstractContextManager[None]]) -> None:
    """Have `shield` use `hold`, as a worker does whose handlers can be interrupted."""
    _Shield.hold = hold


def shield() -> AbstractContextManager[None]:
    """Hold interrupts back in a `with` block, in which they would leave a connection or a lock in use."""
    return _Shield.hold()


#: The queue whose calls this process takes; empty outside workers.
_queue = ""
_slots = 0


def serve_queue(name: str, slots: int) -> None:
    """Note the queue that this process serves, `wt:<name>`, and how many calls its pool runs at a time."""
    global _queue, _slots
    _queue, _slots = name, slots


def current_queue() -> str:
    return _queue


def current_slots() -> int:
    return _slots


def in_worker() -> bool:
    return _worker != 0


def in_fork() -> bool:
    """Return whether an app has forked this process from a worker."""
    return _worker not in {0, os.getpid()}


running: ContextVar[RunningCall | None] = ContextVar("wsgi_timeout_running", default=None)
#: The calls that this process runs now, by id and attempt.
_here: dict[tuple[str, int], RunningCall] = {}
#: The attribute of a thread that holds the call in which it was started.
_STARTED_IN = "_wsgi_timeout_call"


@contextmanager
def run_as(call: RunningCall) -> Iterator[None]:
    """Make `call` the current one while its handler runs."""
    key = call.id, call.attempt
    token = running.set(call)
    _here[key] = call
    try:
        yield
    finally:
        _here.pop(key, None)
        running.reset(token)


def follow_threads() -> None:
    """Have threads belong to the call in which they were started; they inherit no context variables."""
    start = threading.Thread.start

    @wraps(start)
    def start_here(thread: threading.Thread) -> None:
        setattr(thread, _STARTED_IN, _current())
        start(thread)

    threading.Thread.start = start_here  # type: ignore[method-assign, assignment]


def _current() -> RunningCall | None:
    """Return the call to which the current thread or task belongs; None if there is none."""
    call = running.get() or getattr(threading.current_thread(), _STARTED_IN, None)
    if call is not None and (call.id, call.attempt) in _here:
        return call
    # A thread that outlives calls, as in a thread pool: if only one call runs here, it is that one's.
    here = list(_here.values())
    return here[0] if len(here) == 1 else None


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Report how far the current call is.

    It is shown on the waiting page, on the call's status URL and by `FunctionCall.status`. Works from
    anywhere in a handler or a function, from threads that it has started, and while a response is
    streamed; outside a call it does nothing. Reports are written a few times a second at most, the last
    one always.

    Args:
        done: how much is done, in any unit of yours.
        total: how much there is to do, in the same unit; None if it is not known.
        message: what is being done, for people; of a longer one the first 1,000 characters.

    Numbers may be of any type that `int()` or `float()` takes, as Decimal and numpy's are; what cannot be
    shown is left out, and never ends the handler.
    """
    if _here and (call := _current()) is not None:
        call.progress(done, total, message)


def track(rows: Iterable[T], total: float | None = None, message: str = "") -> Iterator[T]:
    """Yield each row, and report how many are done.

    Args:
        rows: what is worked on, one after the other.
        total: how many there are; by default their length, if they have one.
        message: what is being done, for people.
    """
    if total is None and isinstance(rows, Sized):
        total = len(rows)
    done = 0
    for row in rows:
        progress(done, total, message)
        yield row
        done += 1
    progress(done, total, message)


def _number(value: object) -> float | None:
    """Return a value as a number for JSON; None if it cannot be converted."""
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
