"""Finds dead workers, and recovers the calls that they held.

A lease is a counter that a pool raises every few seconds. It is lost when an observer has seen no change
for `lease_seconds`, over its own unbroken connection to Redis. With a TTL instead, all leases would expire
while Redis restarts, and every running call would be lost.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from wsgi_timeout import metrics
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.record import Outcome, text
from wsgi_timeout.store.redis_errors import AWAY, UNAVAILABLE, ErrorReply, Refused
from wsgi_timeout.store.workers import Workers

log = logging.getLogger("wsgi_timeout")

#: Seconds between two looks at the leases.
LOOK_SECONDS = 1.0
#: Seconds between two looks for keys of a wrong type; one that a look meets is seen at once.
_MEND_SECONDS = 10.0
#: The same while there is no call.
_EMPTY_MEND_SECONDS = 60.0
#: Seconds between two looks for what stock workers of RQ hold or have failed, while there is nothing.
_STOCK_SECONDS = 2.0

#: How many ids of RQ's intermediate queue, and of its failed jobs, one look reads.
_MOST = 100

WORKER_DIED = "its worker died while it ran"
ABANDONED = "nobody waits for it any more: its clients have left (abandon_after), or its caller has died"


class LeaseWatch:
    """One observer of the leases of one name."""

    def __init__(self, workers: Workers, lease_seconds: float) -> None:
        self._workers = workers
        self._lease_seconds = lease_seconds
        #: The last value of each worker's lease, and since when it is the same.
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._popped: dict[str, float] = {}
        self._failed: dict[str, float] = {}
        #: Parts of a look that Redis has refused, or that failed, and that were logged.
        self._refused: set[str] = set()
        self._mended, self._next_stock = -math.inf, 0.0
        self._looked = time.monotonic()
        self._intermediate = rq_state.intermediate_key(workers.name)
        self._failures = rq_state.failed_key(workers.name)

    def step(self, *, looked: bool = False, empty: bool = False) -> None:
        """Look once; recover the calls of every worker whose lease is lost.

        `looked`: the leases were looked at just now. `empty`: there is nothing else to look at, see
        `Workers.is_empty`.
        """
        self._part("types", self._mend, _EMPTY_MEND_SECONDS if empty else _MEND_SECONDS)
        if not looked:
            try:
                self.look_at_leases()
            except UNAVAILABLE:
                return
        if empty:
            self._popped.clear()
            self._failed.clear()
            return
        now = time.monotonic()
        # Each part by itself, so that one that is refused does not prevent the others.
        if self._popped or self._failed or now >= self._next_stock:
            self._next_stock = now + _STOCK_SECONDS
            self._part("popped", self._look_at_intermediate, now)
            self._part("failed", self._look_at_failed, now)
        self._part("recount", self._recount)

    def look_at_leases(self) -> dict[bytes, bytes]:
        """Look at the leases; return them by worker. Raises what redis-py raises."""
        try:
            leases = self._leases()
        except UNAVAILABLE:
            # Over a broken connection nothing was observed: begin again.
            self._forget()
            raise
        except ErrorReply:
            self.mend_soon()
            raise
        self.observe(leases)
        return leases

    def observe(self, leases: dict[bytes, bytes]) -> None:
        """Take the leases, as they were read just now; recover the calls of those that are lost."""
        now = time.monotonic()
        if now - self._looked > max(self._lease_seconds / 2, 2 * LOOK_SECONDS):
            # This process was frozen, or the command hung and was repeated: it has observed nothing.
            self._forget()
        self._looked = now
        current = {text(worker): count for worker, count in leases.items()}
        self._seen = {
            worker: self._seen[worker] if self._seen.get(worker, (None,))[0] == count else (count, now)
            for worker, count in current.items()
        }
        for worker, (count, since) in tuple(self._seen.items()):
            if now - since >= self._lease_seconds:
                self._part("recover", self._recover, worker, count)

    def mend_soon(self) -> None:
        """Look for keys of a wrong type with the next step: somebody has met one."""
        self._mended = -math.inf

    def _part(self, part: str, do: Callable[..., None], *args: Any) -> None:
        try:
            do(*args)
        except Refused as error:
            if part not in self._refused:
                self._refused.add(part)
                log.warning("queue wt:%s: Redis refuses a look (%s): %s", self._workers.name, part, error)
        except AWAY:
            self._forget()
        except ErrorReply as error:
            self.mend_soon()
            if part not in self._refused:
                self._refused.add(part)
                log.warning("queue wt:%s: odd data (%s), skipped: %s", self._workers.name, part, error)

    def _mend(self, seconds: float) -> None:
        if time.monotonic() >= self._mended + seconds:
            self._mended = time.monotonic()
            for key in self._workers.mend():
                log.error(
                    "%s: of another type than wsgi-timeout needs, and deleted: who writes to this Redis?", key
                )

    def _recount(self) -> None:
        """Recount bytes; end calls that were removed from the queue, or that nobody asks for."""
        taken_out, unasked = self._workers.recount()
        for call_id in taken_out:
            log.warning("%s: taken out of the queue with RQ's own tools, cancelled", call_id)
        for call_id in unasked:
            if self._workers.end(call_id, Outcome.CANCELLED, ABANDONED, None):
                log.warning("%s: %s, cancelled", call_id, ABANDONED)

    def _leases(self) -> dict[bytes, bytes]:
        client, key = self._workers.redis, keys.leases(self._workers.name)
        now = time.monotonic()
        if any(now - since > self._lease_seconds / 2 for _, since in self._seen.values()):
            # A write that changes nothing: it fails while Redis refuses writes, when no lease can be renewed.
            client.hdel(key, "")
        leases: dict[bytes, bytes] = client.hgetall(key)
        return leases

    def _forget(self) -> None:
        self._seen.clear()
        self._popped.clear()
        self._failed.clear()

    def _look_at_intermediate(self, now: float) -> None:
        """Queue calls again that an `rq worker` popped and never started: RQ would leave them there."""
        ids = [text(call_id) for call_id in self._workers.redis.lrange(self._intermediate, 0, _MOST)]
        self._popped = {call_id: self._popped.get(call_id, now) for call_id in ids}
        for call_id, since in tuple(self._popped.items()):
            if now - since >= self._lease_seconds:
                self._workers.put_back(call_id)
                del self._popped[call_id]
                log.warning("%s: popped by an rq worker and not started, put back", call_id)

    def _look_at_failed(self, now: float) -> None:
        """Queue calls again that an `rq worker` failed before they began: RQ would not run them again."""
        ids = [text(call_id) for call_id in self._workers.redis.zrevrange(self._failures, 0, _MOST)]
        self._failed = {call_id: self._failed.get(call_id, now) for call_id in ids}
        for call_id, since in tuple(self._failed.items()):
            if now - since >= self._lease_seconds:
                if self._workers.revive(call_id):
                    log.warning("%s: failed in an rq worker before it began, put back", call_id)
                self._failed[call_id] = now

    def _recover(self, worker: str, count: bytes) -> None:
        settled = self._workers.recover(worker, count, WORKER_DIED)
        self._seen.pop(worker, None)
        if settled is not None:
            metrics.count("lost_leases_total", self._workers.name)
            log.warning(
                "worker %s: no sign of life for %g s, gone; its calls: %s",
                worker,
                self._lease_seconds,
                ", ".join(f"{call} {what}" for call, what in settled) or "none",
            )
