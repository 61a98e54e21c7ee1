"""What a pool does for one queue: it renews leases, recovers dead workers' calls, and queues retries."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import redis

from wsgi_timeout.log_once import LogOnce
from wsgi_timeout.store import keys
from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.record import Outcome, text
from wsgi_timeout.store.redis_errors import UNAVAILABLE, ErrorReply
from wsgi_timeout.store.workers import Workers
from wsgi_timeout.watching.leases import LeaseWatch
from wsgi_timeout_jobs.pool.slow_queue import SlowQueue

log = logging.getLogger("wsgi_timeout.pool")


@contextmanager
def _done(items: list[Any]) -> Iterator[None]:
    """Remove the first item after the block, unless Redis is unavailable and it must be tried again."""
    try:
        yield
    except UNAVAILABLE:
        raise
    except Exception:
        items.pop(0)
        raise
    items.pop(0)


class QueueKeeper:
    """Looks after one queue; all methods that ask Redis may raise `UNAVAILABLE`."""

    def __init__(
        self, client: redis.Redis, name: str, lease_seconds: float, slow_seconds: float = math.inf
    ) -> None:
        """`slow_seconds`: how long a call may wait for a worker before that is logged."""
        self.calls = Calls(client, name)
        self._attempts = Attempts.of(self.calls)
        self._workers = Workers.of(self.calls)
        self._watch = LeaseWatch(self._workers, lease_seconds)
        self._lease_seconds = lease_seconds
        self._slow_queue = SlowQueue(client, name, slow_seconds)
        self._ends: list[tuple[str, Outcome, str, int]] = []
        self._unsettled: list[tuple[str, str]] = []
        self._live: list[str] = []
        #: Whether workers of other pools serve this queue too.
        self._others = True
        self._log_once = LogOnce(f"queue wt:{name}", but=UNAVAILABLE)
        #: By worker and call: since when a live worker has held it without beginning it.
        self._held: dict[tuple[str, str], float] = {}

    def renew(self, workers: list[str], busy: Collection[str] = ()) -> list[str]:
        """Renew the leases of live workers; return those whose lease was lost, and their calls recovered.

        `busy`: those of them that run calls.
        """
        lost: list[str] = []
        if workers:
            lost, leases = self._workers.renew_and_look(workers, busy)
            self._watch.observe(leases)
            self._others = len(leases) > len(workers) - len(lost)
        self._live = [worker for worker in workers if worker not in lost]
        return lost

    def end(self, call_id: str, outcome: Outcome, detail: str, attempt: int) -> None:
        """Note an outcome that the worker will not record itself; `settle` records it."""
        self._ends.append((call_id, outcome, detail, attempt))

    def worker_died(self, worker: str, death: str) -> None:
        """Note a worker's death; `settle` recovers its calls."""
        self._live = [each for each in self._live if each != worker]
        self._unsettled.append((worker, death))

    def settle(self) -> None:
        """Record noted outcomes, then recover the calls of dead workers: ended calls must not run again."""
        while self._ends:
            call_id, outcome, detail, attempt = self._ends[0]
            with self._log_once, _done(self._ends):
                self.calls.end(call_id, outcome, detail, None, attempt)
        while self._unsettled:
            worker, death = self._unsettled[0]
            with self._log_once, _done(self._unsettled):
                for call_id, what in self._workers.recover(worker, None, death) or ():
                    if what != "dropped":
                        log.error("%s: %s, call %s", call_id, death, what)

    def release(self) -> None:
        """Queue the function calls whose pause before a retry is over."""
        if ":" in self.calls.name:
            with self._mended_after_errors():
                self._workers.release()

    def is_empty(self, *others: str) -> bool:
        """Return whether there is no call to look after, nor any of `others` (keys), by one command."""
        return self._workers.is_empty(*map(keys.held, self._live), *others)

    def look(self, *, empty: bool = False) -> None:
        """Check for dead workers of other pools, and for calls that frozen workers of ours hold.

        `empty`: there is no call to look after.
        """
        # What ours are doing stands in what `renew` has just read.
        self._watch.step(looked=empty and bool(self._live) and not self._others, empty=empty)
        if empty:
            self._held.clear()
            return
        self._look_at_held(time.monotonic())
        with self._mended_after_errors():
            self._slow_queue.look()

    @contextmanager
    def _mended_after_errors(self) -> Iterator[None]:
        try:
            yield
        except ErrorReply:
            self._watch.mend_soon()
            raise

    def _look_at_held(self, now: float) -> None:
        """Put back calls that a worker holds and does not begin: it may be frozen."""
        if not self._live:
            return
        pipe = self.calls.redis.pipeline(transaction=False)
        for worker in self._live:
            pipe.lrange(keys.held(worker), 0, -1)
        held = [
            (worker, text(call_id))
            for worker, ids in zip(self._live, pipe.execute(raise_on_error=False), strict=True)
            # An error means that others have just given this worker up: the next `renew` says so.
            if not isinstance(ids, Exception)
            for call_id in ids
        ]
        self._held = {each: self._held.get(each, now) for each in held}
        for (worker, call_id), since in tuple(self._held.items()):
            if now - since >= self._lease_seconds:
                if self._attempts.give_back(call_id, worker):
                    log.warning("%s: worker %s did not begin it, put back", call_id, worker)
                self._held[worker, call_id] = now
