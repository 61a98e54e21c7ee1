"""Finds out which web server this process runs under, and how many requests that handles at a time."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

log = logging.getLogger("wsgi_timeout")


@dataclass(frozen=True, slots=True)
class WebServer:
    """What is known of the web server."""

    #: Its name; empty: unknown.
    name: str = ""
    #: How many requests one process handles at a time; infinity: no limit, or unknown.
    threads: float = math.inf
    #: Seconds after which it ends a request; infinity: never.
    timeout: float = math.inf
    #: The option that gives it more threads.
    option: str = ""


def find() -> WebServer:
    """Return the server that handles the current request."""
    for kind in (_gunicorn, _uwsgi, _waitress, _granian, _mod_wsgi, _a2wsgi):
        if found := kind():
            return found
    return WebServer()


def warn_of_few_threads(server: WebServer, max_waiting: int) -> None:
    """Log a line if waiting requests can take all threads, so that none is left for others."""
    if server.threads <= max_waiting:
        log.warning(
            "%s handles %g requests at a time, and each that waits keeps a thread: while %g wait, all others "
            "stand in line behind them, fast ones too. Give it more than max_waiting=%d by %s, or set "
            "WSGI_TIMEOUT_MAX_WAITING below its threads, so that others are refused with a 503 instead",
            server.name,
            server.threads,
            server.threads,
            max_waiting,
            server.option,
        )


def in_frames(accepts: Callable[[str, Any], bool], frame: FrameType | None) -> Any:
    """Return the first local variable of these frames that `accepts(name, value)` takes; None if none.

    Servers do not pass themselves to apps, so they are found on the stack.
    """
    while frame is not None:
        for name, value in tuple(frame.f_locals.items()):
            if accepts(name, value):
                return value
        frame = frame.f_back
    return None


def gunicorn_worker(kind: type) -> Any:
    """Return the gunicorn worker of this class that runs this process; None if there is none."""
    frame = sys._getframe()  # noqa: SLF001
    return in_frames(lambda name, value: name == "self" and isinstance(value, kind), frame)


def _gunicorn() -> WebServer | None:
    base = sys.modules.get("gunicorn.workers.base")
    worker = gunicorn_worker(base.Worker) if base else None
    if worker is None:
        return None
    sync, gthread = (sys.modules.get(f"gunicorn.workers.{name}") for name in ("sync", "gthread"))
    name = f"gunicorn's {type(worker).__module__}.{type(worker).__name__}"
    if sync and isinstance(worker, sync.SyncWorker):
        timeout = float(worker.cfg.timeout) or math.inf
        return WebServer(name, 1, timeout, "-c python:wsgi_timeout.gunicorn_conf")
    if gthread and isinstance(worker, gthread.ThreadWorker):
        return WebServer(name, worker.cfg.threads, option="--threads")
    return WebServer(name)


def _uwsgi() -> WebServer | None:
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None:
        return None
    options = uwsgi.opt
    # uWSGI's values are bytes; an option that was given twice has a list.
    threads = math.inf if "gevent" in options else _number(options.get("threads", 1))
    return WebServer("uWSGI", threads, _number(options.get("harakiri", math.inf)), "--threads")


def _waitress() -> WebServer | None:
    task = sys.modules.get("waitress.task")
    if task is None:
        return None
    frame = sys._getframe()  # noqa: SLF001
    found = in_frames(lambda name, value: name == "self" and isinstance(value, task.Task), frame)
    return WebServer("waitress", found.channel.server.adj.threads, option="--threads") if found else None


def _granian() -> WebServer | None:
    if "granian" not in sys.modules:
        return None
    # Granian's request threads have no Python frames of its own; its main thread has the number of threads.
    for frame in _all_frames():
        threads = in_frames(lambda name, value: name == "blocking_threads" and isinstance(value, int), frame)
        if threads:
            return WebServer("Granian", threads, option="--blocking-threads")
    return None


def _mod_wsgi() -> WebServer | None:
    mod_wsgi = sys.modules.get("mod_wsgi")
    threads = getattr(mod_wsgi, "threads_per_process", 0)
    return WebServer("mod_wsgi", threads, option="--threads") if threads else None


def _a2wsgi() -> WebServer | None:
    wsgi = sys.modules.get("a2wsgi.wsgi")
    if wsgi is None:
        return None
    frame = sys._getframe()  # noqa: SLF001
    found = in_frames(lambda name, value: name == "self" and hasattr(value, "executor"), frame)
    threads = getattr(getattr(found, "executor", None), "_max_workers", math.inf)
    return WebServer("a2wsgi", threads, option="WSGIMiddleware(app, workers=...)")


def _all_frames() -> Iterator[FrameType]:
    yield from sys._current_frames().values()  # noqa: SLF001


def _number(value: Any) -> float:
    last = value[-1] if isinstance(value, list) else value
    return float(last)
