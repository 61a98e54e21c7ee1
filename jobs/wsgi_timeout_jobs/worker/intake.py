"""Takes calls from the queue, in a worker's main thread, until the worker is told to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from wsgi_timeout.store import keys
from wsgi_timeout.store.attempts import Attempts, MustLeave
from wsgi_timeout.store.record import Taken, text
from wsgi_timeout.store.redis_errors import ANY, UNAVAILABLE, what_happened
from wsgi_timeout_jobs.process.board import Board
from wsgi_timeout_jobs.process.options import WorkerOptions

log = logging.getLogger("wsgi_timeout.worker")

#: Seconds between two tries while Redis is away, or while no call may be taken.
_RETRY_SECONDS = 0.5
#: Seconds that one BLMOVE blocks; a dead connection is noticed only after it.
_BLOCK_SECONDS = 3
#: The part of `lease_seconds` without a renewal after which a worker takes no more calls.
_LEASE_AT_RISK = 0.8


class _Stop(BaseException):
    """Breaks off a BLMOVE. A call that it has moved stays held, and is recovered after the process's end."""


class Intake:
    """Takes the calls of one queue for one worker."""

    def __init__(
        self, attempts: Attempts, options: WorkerOptions, board: Board, runs_here: Callable[[str], bool]
    ) -> None:
        """`runs_here` returns whether the worker runs the call of an id."""
        self._attempts = attempts
        self._worker = options.worker
        self._lease_seconds = options.lease_seconds
        self._board = board
        self._runs_here = runs_here
        #: Whether this worker was told to stop.
        self.stopping = False
        self._blocking = False
        self._lost_reply = False
        #: What was last logged about Redis; empty once it answers again.
        self._told = ""
        #: Whether others waited in the queue when the last call was taken.
        self._more = False

    def on_stop(self, _number: int, _frame: FrameType | None) -> None:
        """Take no more calls, and break off a BLMOVE: a signal handler."""
        self.stopping = True
        if self._blocking:
            self._blocking = False
            raise _Stop

    def next(self) -> Taken | None:
        """Wait some seconds for a call; return None if none came, or none may be taken now."""
        try:
            taken = self._take()
        except _Stop:
            return None
        except ANY as error:
            # A server that becomes a replica breaks off a BLMOVE too.
            self._lost_reply = True
            self._tell(what_happened(error))
            if not isinstance(error, UNAVAILABLE):
                with suppress(*ANY):
                    self._attempts.drop_junk(self._worker)
            time.sleep(_RETRY_SECONDS)
            return None
        self._told = ""
        # With several slots it may take a while until the next one is free.
        self._more = taken is not None and taken.more and self._board.slots == 1
        return taken

    def _tell(self, trouble: str) -> None:
        """Log a problem with Redis, once for each outage."""
        if trouble != self._told:
            self._told = trouble
            log.warning("worker %s: %s, trying again", self._worker, trouble)

    def let_go(self) -> None:
        """Give back a call that a broken-off BLMOVE has moved here: it need not wait for our handlers."""
        with suppress(*ANY):
            for call_id in self._not_begun():
                self._attempts.give_back(call_id, self._worker)

    def _take(self) -> Taken | None:
        if self._more and not self._lost_reply and not self._idle():
            # While calls are queued, taking one costs one round trip instead of two.
            self._more = False
            if taken := self._attempts.take("", self._worker):
                return taken
        call_id = self._next()
        if not call_id:
            return None
        try:
            return self._attempts.take(call_id, self._worker, threads=self._board.slots)
        except MustLeave:
            # The pool will tell it too; another process may run this call at once.
            self.stopping = True
            self._attempts.give_back(call_id, self._worker)
            return None

    def _next(self) -> str | None:
        """Return the id of a call that this worker now holds."""
        if left_over := self._left_over():
            return None if self._idle() else left_over[0]
        self._blocking = True
        try:
            moved = None if self._idle() else self._attempts.pop(self._worker, _BLOCK_SECONDS)
        finally:
            self._blocking = False
        if moved and (self._board.suspended or self._lease_at_risk()):
            self._attempts.give_back(moved, self._worker)
            return None
        return moved

    def _idle(self) -> bool:
        """Return whether to take no call now: told to stop, paused, or the lease is at risk."""
        idle = self._board.suspended or self._lease_at_risk()
        if idle:
            time.sleep(_RETRY_SECONDS)
        return self.stopping or idle

    def _lease_at_risk(self) -> bool:
        """Return whether this worker may soon count as dead: its pool, perhaps frozen, renews no lease."""
        return time.monotonic() - self._board.renewed > _LEASE_AT_RISK * self._lease_seconds

    def _left_over(self) -> list[str]:
        """Return the calls that were moved here by a BLMOVE whose reply was lost."""
        if not self._lost_reply:
            return []
        rest = self._not_begun()
        self._lost_reply = bool(rest)
        return rest

    def _not_begun(self) -> list[str]:
        """Return the calls that this worker holds and does not run."""
        held = self._attempts.redis.lrange(keys.held(self._worker), 0, -1)
        return [text(call_id) for call_id in held if not self._runs_here(text(call_id))]
