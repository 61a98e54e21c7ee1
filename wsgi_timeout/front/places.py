"""How many requests may wait in this process, and what a request holds while it waits."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from wsgi_timeout import metrics
from wsgi_timeout.compat import Self
from wsgi_timeout.errors import TooManyWaiting
from wsgi_timeout.watching.waiter import Waiter

#: Seconds that a redirected request's place is kept for its next hop.
_KEPT_SECONDS = 2.0
#: Hops of accepted calls may take `2 * max_waiting + HOP_RESERVE` places; this many threads always stay free.
HOP_RESERVE = 8


class Places:
    """Counts the requests that wait in this process, and refuses new ones over `max_waiting`.

    A redirected client comes back at once, for a call that was accepted long ago: its place is kept for a
    moment, so that a new request cannot take it. After a deploy the client comes to a process that has kept
    no place for it: therefore hops have a higher limit than new requests. A response on its way to a slow
    client waits no longer, and takes none of the `max_waiting` places; only threads are kept free beside it.
    """

    def __init__(self, limit: int, threads: float = math.inf, name: str = "") -> None:
        """Set the limits.

        Args:
            limit: `max_waiting`.
            threads: how many the server has; some stay free for requests that do not wait.
            name: the target's name, a label of the metrics.
        """
        self._name = name
        metrics.count("waiting_requests_max", name, by=limit)
        self.limit = limit
        self._hops = max(limit, min(2 * limit + HOP_RESERVE, threads - HOP_RESERVE))
        #: How many requests may wait or be answered.
        self._all = max(limit, threads - HOP_RESERVE)
        #: Functions that close responses nobody has closed; filled without a lock, see `Seat.close_later`.
        self.closing: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._taken = self._delivering = 0
        self._kept: dict[str, float] = {}

    def take(self, call_id: str = "") -> Place:
        """Take a place, the one kept for this call's next hop if there is one; raises `TooManyWaiting`."""
        now = time.monotonic()
        with self._lock:
            while self._kept and next(iter(self._kept.values())) <= now:
                del self._kept[next(iter(self._kept))]
            kept = self._kept.pop(call_id, None) is not None
            limit = min(self._hops if call_id else self.limit, self._all - self._delivering)
            if not kept and self._taken + len(self._kept) >= limit:
                raise TooManyWaiting(f"{self.limit} requests wait in this process already (max_waiting)")
            self._taken += 1
        metrics.count("waiting_requests", self._name)
        return Place(self)

    def deliver(self) -> None:
        """Note that a request waits no longer: its response is sent."""
        with self._lock:
            self._taken -= 1
            self._delivering += 1

    def give_back(self, kept_for: str, *, delivering: bool) -> None:
        metrics.count("waiting_requests", self._name, by=-1)
        with self._lock:
            if delivering:
                self._delivering -= 1
            else:
                self._taken -= 1
            if kept_for:
                self._kept[kept_for] = time.monotonic() + _KEPT_SECONDS


class Place:
    """One place that a request has taken; it is given back at the end of a `with` block."""

    __slots__ = ("_delivering", "kept_for", "places")

    def __init__(self, places: Places) -> None:
        self.places = places
        #: The call for whose next hop the place is kept; empty: for none.
        self.kept_for = ""
        self._delivering = False

    def deliver(self) -> None:
        """Make room for another one that waits."""
        if not self._delivering:
            self._delivering = True
            self.places.deliver()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.places.give_back(self.kept_for, delivering=self._delivering)


class Seat:
    """A waiting request's place and waiter, held until the end of a `with` block."""

    __slots__ = ("_passed_on", "_place", "waiter")

    def __init__(self, place: Place, waiter: Waiter) -> None:
        self.waiter = waiter
        self._place = place
        self._passed_on = False

    def keep_place(self) -> None:
        """Keep the place for a moment, for the client's next hop."""
        self._place.kept_for = self.waiter.call_id

    def pass_on(self) -> Self:
        """Keep the seat for a response on its way, beyond this `with` block; it is ended by another one."""
        self._passed_on = True
        self._place.deliver()
        return self

    def close_later(self, close: Callable[[], None]) -> None:
        """Have another thread call `close` soon. Takes no lock: a garbage collector may call this."""
        self._place.places.closing.append(close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._passed_on:
            self._passed_on = False
            return
        with self._place, self.waiter:
            pass
