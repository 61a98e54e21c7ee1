"""What one web process holds for one name: connections, calls, the listener, the watch on leases."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import Self

import redis

from wsgi_timeout.calls import Calls
from wsgi_timeout.connection import AWAY, REFUSING, connect
from wsgi_timeout.errors import NoWorker, TooManyWaiting
from wsgi_timeout.recovery import LOOK_SECONDS, LeaseWatch, find_stranger
from wsgi_timeout.settings import Settings
from wsgi_timeout.waiting import Listener

log = logging.getLogger("wsgi_timeout")

#: Connections for commands, however many requests wait. With the listener's and the watch's: four.
_COMMAND_CONNECTIONS = 2


class Runtime:
    """Built in the process that uses it, with its first request: nothing of it survives a fork."""

    def __init__(self, url: str, name: str, target: str, settings: Settings) -> None:
        self.calls = Calls(connect(url, connections=_COMMAND_CONNECTIONS), name)
        self.listener = Listener(partial(connect, url, connections=1))
        self.places = Places(settings.max_waiting)
        self._target = target
        self._watched = Calls(connect(url, connections=1), name)
        self._watch = LeaseWatch(self._watched, settings.lease_seconds)
        self._stranger = find_stranger(self._watched, target)
        threading.Thread(target=self._look_forever, name="wsgi-timeout-watch", daemon=True).start()

    def check_workers(self) -> None:
        """Raise `NoWorker` while workers of another app or version serve this name."""
        if self._stranger:
            raise NoWorker(self._stranger)

    def _look_forever(self) -> None:
        while True:
            self._watch.step()
            try:
                stranger = find_stranger(self._watched, self._target)
            except (*AWAY, *REFUSING, redis.exceptions.ResponseError):
                stranger = self._stranger
            if stranger and stranger != self._stranger:
                log.error("requests are refused: %s", stranger)
            self._stranger = stranger
            time.sleep(LOOK_SECONDS)


#: Seconds that a redirected request's place is kept for its next hop.
_KEPT_SECONDS = 2.0
#: Places above `max_waiting` for the hops of accepted calls only.
HOP_RESERVE = 8


class Places:
    """Counts who waits in this process, at most `max_waiting`.

    A redirected client comes back at once, and its call was accepted long ago: its place is kept for
    a moment, so that no newcomer makes it end in a 503.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._taken = 0
        self._kept: dict[str, float] = {}

    def take(self, call_id: str = "") -> Place:
        """Take a place, for the next hop of `call_id` if given; raises `TooManyWaiting`."""
        now = time.monotonic()
        with self._lock:
            while self._kept and next(iter(self._kept.values())) <= now:
                del self._kept[next(iter(self._kept))]
            kept = self._kept.pop(call_id, None) is not None
            limit = self.limit + (HOP_RESERVE if call_id else 0)
            if not kept and self._taken + len(self._kept) >= limit:
                raise TooManyWaiting(f"{self.limit} requests wait in this process already (max_waiting)")
            self._taken += 1
        return Place(self)

    def give_back(self, kept_for: str) -> None:
        with self._lock:
            self._taken -= 1
            if kept_for:
                self._kept[kept_for] = time.monotonic() + _KEPT_SECONDS


class Place:
    """One taken place, given back at the end of a `with` block."""

    def __init__(self, places: Places) -> None:
        self._places = places
        #: The call whose next hop the place is kept for; empty: nobody's.
        self.kept_for = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._places.give_back(self.kept_for)
