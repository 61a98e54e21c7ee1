"""Finding workers that are gone for good, and settling the calls that they held.

A lease is a counter that a pool raises every few seconds. It is lost only when an observer saw no
change through `lease_seconds` of its own unbroken connection to Redis: a TTL would run out while
Redis restarts, and then every live call would be lost.
"""

from __future__ import annotations

import logging
import time

import redis

from wsgi_timeout import keys
from wsgi_timeout.calls import Calls
from wsgi_timeout.connection import AWAY, REFUSING

log = logging.getLogger("wsgi_timeout")

#: Seconds between two looks at the leases.
LOOK_SECONDS = 1.0

WORKER_DIED = "its worker died while it ran"


class LeaseWatch:
    """One observer of the leases of one name."""

    def __init__(self, calls: Calls, lease_seconds: float) -> None:
        self._calls = calls
        self._lease_seconds = lease_seconds
        self._seen: dict[str, tuple[int, float]] = {}

    def step(self) -> None:
        """Look once; recover the calls of every worker whose lease is lost."""
        try:
            leases = self._calls.redis.hgetall(keys.leases(self._calls.name))
            now = time.monotonic()
            current = {worker.decode(): int(count) for worker, count in leases.items()}
            self._seen = {
                worker: self._seen[worker] if self._seen.get(worker, (None,))[0] == count else (count, now)
                for worker, count in current.items()
            }
            for worker, (count, since) in tuple(self._seen.items()):
                if now - since >= self._lease_seconds:
                    self._recover(worker, count)
        except (*AWAY, *REFUSING, redis.exceptions.ResponseError):
            # Silence seen through a broken connection proves nothing: begin again.
            self._seen.clear()

    def _recover(self, worker: str, count: int) -> None:
        settled = self._calls.recover(worker, count, WORKER_DIED)
        self._seen.pop(worker, None)
        if settled is not None:
            log.warning(
                "worker %s: no sign of life for %g s, gone; its calls: %s",
                worker,
                self._lease_seconds,
                ", ".join(f"{call} {what}" for call, what in settled) or "none",
            )


def watch_forever(watch: LeaseWatch) -> None:
    """Look every second, in a thread of a web process."""
    while True:
        watch.step()
        time.sleep(LOOK_SECONDS)
