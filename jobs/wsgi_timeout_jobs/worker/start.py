"""Starts a worker process after its fork: loads the target, then runs its calls."""

from __future__ import annotations

import logging
import os
import signal
from functools import partial

from wsgi_timeout import target as targets
from wsgi_timeout.current import enter_worker, follow_threads, serve_queue
from wsgi_timeout.retrying import retry
from wsgi_timeout.settings import NAME_VARIABLE
from wsgi_timeout.store.redis_errors import UNAVAILABLE, what_happened
from wsgi_timeout.target_files import prepare
from wsgi_timeout_jobs.apps.offered import Entries, of_target
from wsgi_timeout_jobs.apps.other_python.app import OtherPythonApp
from wsgi_timeout_jobs.apps.other_python.process import AppProcess
from wsgi_timeout_jobs.process import forks
from wsgi_timeout_jobs.process.board import Board
from wsgi_timeout_jobs.process.interrupts import ignore
from wsgi_timeout_jobs.process.options import WorkerOptions
from wsgi_timeout_jobs.process.turn import comes_to_its_turn
from wsgi_timeout_jobs.worker.worker import CallWorker

log = logging.getLogger("wsgi_timeout.worker")

#: Seconds between two tries while Redis is away.
_RETRY_SECONDS = 0.5


def run_worker(options: WorkerOptions, board: Board) -> None:
    """Load the target, and run its calls until SIGTERM.

    Raises `ConfigurationError`, or what importing the target raises.
    """
    signal.signal(signal.SIGINT, ignore)
    forks.install()
    enter_worker()
    follow_threads()
    process = _app_process(options, board)
    app = OtherPythonApp(process) if process else targets.load(options.target, asgi=True)
    offered = of_target(app, queue=options.queue)
    if options.loaded:
        options.loaded(app)
    given = options.name or offered.name or os.environ.get(NAME_VARIABLE)
    name = given or targets.name_of(options.target)
    os.environ[NAME_VARIABLE] = name
    board.offer(name, offered.queues)
    queue = f"{name}:{options.queue}" if options.queue else name
    serve_queue(queue, board.slots * options.processes)
    # A spare process connects now as well, not only when it is needed.
    worker = _connected(options, offered, queue, board)
    if options.turn_fd < 0 or comes_to_its_turn(options.turn_fd):
        worker.run()
    if process:
        process.stop()


def _app_process(options: WorkerOptions, board: Board) -> AppProcess | None:
    """Start the process of an app that runs under another interpreter."""
    if not options.python:
        return None
    process = AppProcess(options.python, prepare(options.target), board.slots, reload=options.reload)
    board.app_pid = process.pid
    return process


def _connected(options: WorkerOptions, offered: Entries, queue: str, board: Board) -> CallWorker:
    """Return the worker, once Redis is reached: RQ's constructor needs it."""
    return retry(
        partial(CallWorker, options, offered, queue, board),
        UNAVAILABLE,
        pause=_RETRY_SECONDS,
        failed=lambda error: log.warning("worker %s: %s, trying again", options.worker, what_happened(error)),
    )
