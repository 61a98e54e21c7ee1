"""Ends running calls from outside: at their deadline, after a cancel, or when their lease was lost."""

from __future__ import annotations

import logging
import time

from wsgi_timeout import metrics
from wsgi_timeout.store.record import Outcome
from wsgi_timeout.store.redis_errors import ANY
from wsgi_timeout_jobs.pool.child import Child, Interruption
from wsgi_timeout_jobs.pool.children import Children
from wsgi_timeout_jobs.pool.queue_keeper import QueueKeeper
from wsgi_timeout_jobs.process.board import Running
from wsgi_timeout_jobs.process.interrupts import SIGNAL

log = logging.getLogger("wsgi_timeout.pool")

#: Seconds in which an interrupted handler may record its outcome itself.
_UNANSWERED_SECONDS = 2.0


class Deadlines:
    """Interrupts handlers that run too long or were cancelled, and kills processes that do not end then."""

    def __init__(
        self, children: Children, keepers: dict[str, QueueKeeper], *, threads: int, grace: float
    ) -> None:
        """`grace`: seconds that an interrupted handler may go on; `keepers`: by the full name of a queue."""
        self._children = children
        self._keepers = keepers
        self._threads = threads
        self._grace = grace

    def check(self) -> None:
        """Interrupt handlers that are over their deadline; kill processes that have not ended since."""
        now = time.monotonic()
        for child, running in self._children.running():
            interruption = child.interrupted.get(running.attempt_of)
            if running.settling:
                continue
            if interruption is None:
                if now >= running.deadline:
                    self.interrupt(child, running, Outcome.TIMEOUT)
            elif self._threads == 1:
                self._record_for_waiters(child, running, interruption)
        for child in self._children:
            there = {running.attempt_of for running in child.board.running()}
            child.interrupted = {key: found for key, found in child.interrupted.items() if key in there}
            self._kill_after_grace(child)

    def _record_for_waiters(self, child: Child, running: Running, interruption: Interruption) -> None:
        """Record the outcome for a handler that has not done so yet, so that its waiters get it."""
        seconds = time.monotonic() - interruption.since
        if seconds > min(self._grace, _UNANSWERED_SECONDS) and not interruption.ended:
            interruption.ended = True
            self.record(child, running, interruption.outcome)

    def _kill_after_grace(self, child: Child) -> None:
        """Kill a process whose interrupted handler has not ended, or has left threads behind."""
        since = child.interrupted_since
        if since is None or time.monotonic() - since <= self._grace:
            return
        running = child.board.running()
        # Other calls of the process may end first, and so may one whose outcome is being recorded.
        if any(each.settling or each.attempt_of not in child.interrupted for each in running):
            return
        what = ", ".join(each.call_id for each in running) or "its last call"
        log.warning("%s: did not end when interrupted, %s is killed", what, child.name)
        child.kill()

    def interrupt(self, child: Child, running: Running, outcome: Outcome, *, ended: bool = False) -> None:
        """Interrupt a handler; `ended`: its outcome is recorded already."""
        if running.settling or running.attempt_of in child.interrupted:
            return
        now = child.interrupted_since = time.monotonic()
        child.interrupted[running.attempt_of] = Interruption(now, outcome, ended)
        child.board.interrupt(running, outcome)
        metrics.count("interrupts_total", child.keeper_name, outcome)
        # The handler may leave things half done (a transaction, a lock): its process takes no other call.
        if self._threads == 1:
            # The board tells it so, not a second signal: while one is pending for the main thread, Linux
            # delivers the next one to another thread, and the main thread would sleep on.
            child.stopping_since = now
            child.send(SIGNAL)
            return
        child.stop()
        if not ended:
            # No exception can be raised in a thread that sleeps. The outcome is recorded now, and the
            # process ends after its other calls.
            self.record(child, running, outcome)

    def record(self, child: Child, running: Running, outcome: Outcome, detail: str = "cancelled") -> None:
        """Record an outcome that the worker will not record itself."""
        if outcome is Outcome.TIMEOUT:
            detail = "the handler ran longer than its timeout"
            if self._threads > 1:  # with one thread the worker logs it, with a traceback
                log.error("%s: %s", running.call_id, detail)
        keeper = self._keepers[child.keeper_name]
        keeper.end(running.call_id, outcome, detail, running.attempt)
        try:
            keeper.settle()
        except ANY as error:
            log.warning("%s: %s cannot be recorded yet: %s", running.call_id, outcome, error)
