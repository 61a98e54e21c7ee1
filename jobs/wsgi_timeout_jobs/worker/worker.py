"""The RQ worker that runs calls: a long-lived process with the app loaded, in which each call has a slot."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from wsgi_timeout.retrying import retry
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.connection import SOCKET_TIMEOUT, connect, connect_to_listen
from wsgi_timeout.store.pauses import is_paused
from wsgi_timeout.store.record import Taken
from wsgi_timeout.store.redis_errors import ANY
from wsgi_timeout.store.workers import Workers
from wsgi_timeout.watching.listener import Listener
from wsgi_timeout_jobs.apps.offered import Entries
from wsgi_timeout_jobs.attempt.persist import ends_process_on_error, until_redis_answers
from wsgi_timeout_jobs.attempt.request import RequestRunner
from wsgi_timeout_jobs.attempt.sessions import SessionSigns
from wsgi_timeout_jobs.process.board import Board
from wsgi_timeout_jobs.process.interrupts import SIGNAL, Interrupts, ignore
from wsgi_timeout_jobs.process.options import WorkerOptions
from wsgi_timeout_jobs.process.registration import refuse_conflict, register
from wsgi_timeout_jobs.worker.intake import Intake

if TYPE_CHECKING:
    from wsgi_timeout_jobs.attempt.function import FunctionRunner

log = logging.getLogger("wsgi_timeout.worker")

_RETRY_SECONDS = 0.5
#: Seconds after which the main thread, while no slot is free, checks whether it is to stop.
_SLOT_SECONDS = 3


class CallWorker(BaseWorker):
    """Takes calls of one queue and runs them in this process, up to `board.slots` at a time."""

    def __init__(self, options: WorkerOptions, offered: Entries, queue: str, board: Board) -> None:
        """Connect, to take the calls of `wt:<queue>`."""
        # One connection for the main thread, and two for each handler: one sends its response.
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
        #: The attempts that run here: a call's next attempt may begin before the last one's thread has ended.
        self._active: set[tuple[str, int]] = set()
        self._sessions = SessionSigns(options.cookies) if options.cookies else None
        self._intake = Intake(self._attempts, options, board, self._runs_here)
        self._free = list(range(board.slots))
        self._changed = threading.Condition()

    @property
    def connection_timeout(self) -> float:
        """The socket timeout; RQ would raise it to 415 s, during which a dead server is not noticed."""
        return SOCKET_TIMEOUT

    def run(self) -> None:
        """Register, and run calls until SIGTERM or until `max_requests` were run."""
        signal.signal(signal.SIGTERM, self._intake.on_stop)
        runner = self._runner()
        if self._board.slots == 1:
            self._interrupts.install()
        else:
            # Handlers run in other threads, where signals cannot interrupt them: the pool ends their calls.
            signal.signal(SIGNAL, ignore)
        workers = Workers.of(self._attempts)
        refuse = partial(refuse_conflict, workers, self._attempts, self._options)
        until_redis_answers(refuse, self._interrupts.shield)
        # From here the lease's age counts: the pool renews it only once this process is ready.
        self._board.renewed = time.monotonic()
        described = partial(register, workers, self._options, self._offered.mounts)
        until_redis_answers(described, self._interrupts.shield)
        until_redis_answers(self._look_whether_paused, self._interrupts.shield)
        self._board.ready = True
        self._wake_pool()
        log.info("worker %s takes calls of %s", self.name, self.queue_names()[0])
        while not (self._intake.stopping or self._board.interrupted) and self._left > 0:
            self._take_and_run(runner)
        self._board.leaving = True
        self._wake_pool()
        self._wait_for_handlers()

    def _wake_pool(self) -> None:
        """Have the pool look at its processes now, as when one of them ends."""
        os.kill(self._options.pool_pid, signal.SIGCHLD)

    def _runner(self) -> RequestRunner | FunctionRunner:
        attempts, interrupts, board = self._attempts, self._interrupts, self._board
        if self._options.queue:
            from wsgi_timeout_jobs.attempt.function import FunctionRunner  # noqa: PLC0415 - not for web calls

            return FunctionRunner(self._offered.functions, attempts, interrupts, board)
        return RequestRunner(self._offered.apps, attempts, self._listener, interrupts, board, self._sessions)

    def _look_whether_paused(self) -> None:
        """Ask whether the name is paused, before the first call; later the pool tells of pauses."""
        self._board.suspended = is_paused(self._attempts.redis, self._attempts.name)

    def _take_and_run(self, runner: RequestRunner | FunctionRunner) -> None:
        slot = self._slot()
        if slot is None:
            return
        taken = self._intake.next()
        if not taken:
            self._give_back(slot, None)
            return
        attempt = (taken.attempt.call_id, taken.attempt.number)
        if attempt in self._active:
            # Its id lay in the queue twice; to `take` that is a repeat, as after a lost reply.
            with suppress(*ANY):
                self._attempts.redis.lrem(keys.held(self.name), 1, taken.attempt.call_id)
            self._give_back(slot, None)
            return
        self._left -= 1
        self._active.add(attempt)
        if self._board.slots == 1:
            self._run(runner, slot, taken)
        else:
            self._start(runner, slot, taken)

    def _runs_here(self, call_id: str) -> bool:
        return any(call_id == active for active, _ in tuple(self._active))

    def _start(self, runner: RequestRunner | FunctionRunner, slot: int, taken: Taken) -> None:
        """Run a call in a new thread, so that no late interrupt or cleanup of one call reaches the next."""
        call_id, tries = taken.attempt.call_id, itertools.count()

        def start() -> bool:
            if next(tries) and not self._still_runs(taken):
                return False
            args = (runner, slot, taken)
            threading.Thread(target=self._run, args=args, name=call_id, daemon=True).start()
            return True

        def failed(error: Exception) -> None:
            log.warning("%s: no thread can be started (%s), trying again", call_id, error)

        def is_alone() -> bool:
            return not self._handlers_go_on(but=taken)

        # It fails with too many threads, or too little memory. While other handlers run, it is tried again;
        # otherwise this process ends, and the call is recovered.
        if not retry(start, (RuntimeError,), pause=_RETRY_SECONDS, stopped=is_alone, failed=failed):
            self._give_back(slot, taken)

    def _still_runs(self, taken: Taken) -> bool:
        """Return whether a call that waits for its thread is still to be run; it may have been cancelled."""
        with suppress(*ANY):
            return self._attempts.take(taken.attempt.call_id, self.name) is not None
        return True

    def _run(self, runner: RequestRunner | FunctionRunner, slot: int, taken: Taken) -> None:
        try:
            with ends_process_on_error(self._board):
                runner.run(slot, taken)
        finally:
            self._give_back(slot, taken)

    def _slot(self) -> int | None:
        """Return a free slot; None if none came free in `_SLOT_SECONDS`."""
        with self._changed:
            if not self._free:
                self._changed.wait(_SLOT_SECONDS)
            return self._free.pop() if self._free else None

    def _give_back(self, slot: int, taken: Taken | None) -> None:
        with self._changed:
            self._free.append(slot)
            if taken:
                self._active.discard((taken.attempt.call_id, taken.attempt.number))
            self._changed.notify()

    def _wait_for_handlers(self) -> None:
        while self._handlers_go_on():
            self._intake.let_go()
            with self._changed:
                self._changed.wait(_RETRY_SECONDS)

    def _handlers_go_on(self, but: Taken | None = None) -> bool:
        """Return whether handlers run, other than that of `but` and those that were interrupted."""
        # Not by the board alone: a new thread may not have written to it yet.
        given_up = {on.attempt_of for on in self._board.running() if self._board.reason(on.slot)}
        if but:
            given_up.add((but.attempt.call_id, but.attempt.number))
        return not given_up.issuperset(tuple(self._active))
