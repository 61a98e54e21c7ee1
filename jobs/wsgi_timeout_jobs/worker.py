"""The RQ worker that runs calls: a long-lived process that loads the app once, after the fork."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from types import FrameType

from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from wsgi_timeout import target as targets
from wsgi_timeout.current import enter_worker, follow_threads, serve_queue
from wsgi_timeout.retrying import retry
from wsgi_timeout.settings import NAME_VARIABLE
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.connection import SOCKET_TIMEOUT, connect, connect_to_listen
from wsgi_timeout.store.record import Taken, text
from wsgi_timeout.store.redis_errors import ANY, UNAVAILABLE
from wsgi_timeout.store.workers import Workers
from wsgi_timeout.watching.listener import Listener
from wsgi_timeout_jobs.apps.offered import Entries, of_target
from wsgi_timeout_jobs.apps.other_python.app import OtherPythonApp
from wsgi_timeout_jobs.apps.other_python.process import AppProcess
from wsgi_timeout_jobs.attempt.function import FunctionRunner
from wsgi_timeout_jobs.attempt.persist import until_redis_answers
from wsgi_timeout_jobs.attempt.request import RequestRunner
from wsgi_timeout_jobs.process import forks
from wsgi_timeout_jobs.process.board import Board
from wsgi_timeout_jobs.process.interrupts import Interrupts
from wsgi_timeout_jobs.process.options import WorkerOptions
from wsgi_timeout_jobs.process.registration import refuse_conflict, register
from wsgi_timeout_jobs.process.turn import comes_to_its_turn

log = logging.getLogger("wsgi_timeout.worker")

_RETRY_SECONDS = 0.5
#: Seconds that one BLMOVE blocks: how long a dead connection can go unseen.
_BLOCK_SECONDS = 3
#: How much of its lease may pass before a worker takes no more calls.
_LEASE_AT_RISK = 0.8


class _Stop(BaseException):
    """Ends a BLMOVE; what it may have moved stays held, and is recovered when the process is gone."""


def _ignore(*_: object) -> None:
    """Do nothing at a signal."""


def run_worker(options: WorkerOptions, board: Board) -> None:
    """Be a worker process: load the target, and run its calls until SIGTERM.

    Raises `ConfigurationError`, or what importing the target raises.
    """
    # Ignored by a handler: what a program is told to ignore, those that it starts ignore too.
    signal.signal(signal.SIGINT, _ignore)
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
    if options.turn_fd < 0 or comes_to_its_turn(options.turn_fd):
        _connected(options, offered, queue, board).run()
    if process:
        process.stop()


def _app_process(options: WorkerOptions, board: Board) -> AppProcess | None:
    """Start the process of an app that runs under another interpreter."""
    if not options.python:
        return None
    process = AppProcess(options.python, options.target, board.slots, reload=options.reload)
    board.app_pid = process.pid
    return process


def _connected(options: WorkerOptions, offered: Entries, queue: str, board: Board) -> CallWorker:
    """Return the worker, which RQ makes only where it reaches Redis."""
    return retry(
        partial(CallWorker, options, offered, queue, board),
        UNAVAILABLE,
        pause=_RETRY_SECONDS,
        failed=partial(log.warning, "worker %s: Redis is away (%s), trying again", options.worker),
    )


class CallWorker(BaseWorker):
    """Takes calls of one queue and runs them in this process, up to `board.slots` at a time."""

    def __init__(self, options: WorkerOptions, offered: Entries, queue: str, board: Board) -> None:
        """Connect, to take the calls of `wt:<queue>`."""
        # One for the main thread, and for each handler one, and one for the thread that sends its response.
        threads = 2 * board.slots
        self._attempts = Attempts(connect(options.url, connections=1 + threads + 1), queue)
        super().__init__(
            [rq_state.queue_name(queue)],
            name=options.worker,
            connection=self._attempts.redis,
            serializer=JSONSerializer,
        )
        self._board = board
        self._options = options
        self._offered = offered
        self._left = options.max_requests or sys.maxsize
        self._interrupts = Interrupts(lambda: board.reason(0))
        self._listener = Listener(partial(connect_to_listen, options.url))
        self._stopping = False
        self._blocking = False
        self._lost_reply = False
        #: Whether others waited in the queue when the last call was taken.
        self._more = False
        #: What runs here: a call may be here again before the thread of its last attempt has ended.
        self._active: set[tuple[str, int]] = set()
        self._free = list(range(board.slots))
        self._changed = threading.Condition()

    @property
    def connection_timeout(self) -> float:
        """RQ would raise the socket timeout to 415 s, in which a dead server is not noticed."""
        return SOCKET_TIMEOUT

    def run(self) -> None:
        """Register, and run calls until SIGTERM, or until `max_requests` were run."""
        signal.signal(signal.SIGTERM, self._on_stop)
        runner = self._runner()
        if self._board.slots == 1:
            self._interrupts.install()
        else:
            # Handlers run in other threads, where no signal reaches them: the pool ends their calls.
            signal.signal(signal.SIGUSR2, _ignore)
        workers = Workers.of(self._attempts)
        refuse = partial(refuse_conflict, workers, self._attempts, self._options)
        until_redis_answers(refuse, self._interrupts.shield)
        # The lease's age: this process may be frozen before it is ready, and nobody renews it so long.
        self._board.renewed = time.monotonic()
        described = partial(register, workers, self._options, self._offered.mounts)
        until_redis_answers(described, self._interrupts.shield)
        self._board.ready = True
        log.info("worker %s takes calls of %s", self.name, self.queue_names()[0])
        while not (self._stopping or self._board.interrupted) and self._left > 0:
            self._take_and_run(runner)
        self._board.leaving = True
        self._wait_for_handlers()

    def _runner(self) -> RequestRunner | FunctionRunner:
        attempts, interrupts, board = self._attempts, self._interrupts, self._board
        if self._options.queue:
            return FunctionRunner(self._offered.functions, attempts, interrupts, board)
        return RequestRunner(self._offered.apps, attempts, self._listener, interrupts, board)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        if self._blocking:
            self._blocking = False
            raise _Stop

    def _take_and_run(self, runner: RequestRunner | FunctionRunner) -> None:
        slot = self._slot()
        if slot is None:
            return
        try:
            taken = self._take()
        except _Stop:
            self._give_back(slot, None)
            return
        except ANY as error:
            # Also a BLMOVE that is broken off because the server became a replica.
            self._lost_reply = True
            log.warning("worker %s: Redis is away (%s), trying again", self.name, error)
            self._give_back(slot, None)
            time.sleep(_RETRY_SECONDS)
            return
        if not taken:
            self._give_back(slot, None)
            return
        self._left -= 1
        self._active.add((taken.attempt.call_id, taken.attempt.number))
        if self._board.slots == 1:
            self._more = taken.more
            self._run(runner, slot, taken)
        else:
            self._start(runner, slot, taken)

    def _start(self, runner: RequestRunner | FunctionRunner, slot: int, taken: Taken) -> None:
        """Run a call in a thread of its own, so that nothing meant for one call can hit the next."""
        args = (runner, slot, taken)
        while True:
            try:
                threading.Thread(target=self._run, args=args, name=taken.attempt.call_id, daemon=True).start()
            except RuntimeError as error:
                # Too many threads, or too little memory. Neighbours need not end for it; with none this
                # process does, and the call is recovered.
                if not self._handlers_go_on(but=taken):
                    raise
                log.warning("%s: no thread can be started (%s), trying again", taken.attempt.call_id, error)
                time.sleep(_RETRY_SECONDS)
                if not self._still_runs(taken):
                    self._give_back(slot, taken)
                    return
            else:
                return

    def _still_runs(self, taken: Taken) -> bool:
        """Whether a call that waits for its thread was not ended meanwhile; one that was is let go."""
        with suppress(*ANY):
            return self._attempts.take(taken.attempt.call_id, self.name) is not None
        return True

    def _run(self, runner: RequestRunner | FunctionRunner, slot: int, taken: Taken) -> None:
        try:
            runner.run(slot, taken.attempt, taken.request)
        finally:
            self._give_back(slot, taken)

    def _take(self) -> Taken | None:
        if self._more and not self._lost_reply and not self._idle():
            # One round trip instead of two while there is a queue.
            self._more = False
            if taken := self._attempts.take("", self.name):
                return taken
        call_id = self._next()
        return self._attempts.take(call_id, self.name) if call_id else None

    def _next(self) -> str | None:
        """Return the id of a call that this worker now holds."""
        if left_over := self._left_over():
            return None if self._idle() else left_over[0]
        self._blocking = True
        try:
            moved = None if self._idle() else self._attempts.pop(self.name, _BLOCK_SECONDS)
        finally:
            self._blocking = False
        if moved and (self._board.suspended or self._lease_at_risk()):
            self._attempts.give_back(moved, self.name)
            return None
        return moved

    def _idle(self) -> bool:
        """Whether to take nothing now: told to stop, suspended by `rq suspend`, or its lease is at risk."""
        idle = self._board.suspended or self._lease_at_risk()
        if idle:
            time.sleep(_RETRY_SECONDS)
        return self._stopping or idle

    def _lease_at_risk(self) -> bool:
        """Whether others may soon give this worker up, since its pool is frozen: it would be alone."""
        return time.monotonic() - self._board.renewed > _LEASE_AT_RISK * self._options.lease_seconds

    def _left_over(self) -> list[str]:
        """Return what was moved here by a BLMOVE whose reply was lost."""
        if not self._lost_reply:
            return []
        rest = self._not_begun()
        self._lost_reply = bool(rest)
        return rest

    def _not_begun(self) -> list[str]:
        """Return what lies with this worker, and does not run here."""
        held = self._attempts.redis.lrange(keys.held(self.name), 0, -1)
        active = {call_id for call_id, _ in tuple(self._active)}
        return [text(call_id) for call_id in held if text(call_id) not in active]

    def _slot(self) -> int | None:
        """Return a free slot, after a while None."""
        with self._changed:
            if not self._free:
                self._changed.wait(_BLOCK_SECONDS)
            return self._free.pop() if self._free else None

    def _give_back(self, slot: int, taken: Taken | None) -> None:
        with self._changed:
            self._free.append(slot)
            if taken:
                self._active.discard((taken.attempt.call_id, taken.attempt.number))
            self._changed.notify()

    def _wait_for_handlers(self) -> None:
        while self._handlers_go_on():
            self._let_go()
            with self._changed:
                self._changed.wait(_RETRY_SECONDS)

    def _handlers_go_on(self, but: Taken | None = None) -> bool:
        """Whether there are any to wait for, `but` one; those that were given up are not."""
        # Not by the board alone: a thread may not have come to it yet.
        given_up = {on.attempt_of for on in self._board.running() if self._board.reason(on.slot)}
        if but:
            given_up.add((but.attempt.call_id, but.attempt.number))
        return not given_up.issuperset(tuple(self._active))

    def _let_go(self) -> None:
        """Give back what a BLMOVE moved here when it was broken off: it must not wait for the handlers."""
        with suppress(*ANY):
            for call_id in self._not_begun():
                self._attempts.give_back(call_id, self.name)
