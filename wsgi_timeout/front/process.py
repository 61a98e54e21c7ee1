"""What one web process holds for one name: connections, calls, the listener, the watch on leases."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

from wsgi_timeout.errors import NoWorker, RedisUnavailable, TooManyWaiting, UnknownLabel
from wsgi_timeout.front.upload_ttl import Lifeline
from wsgi_timeout.http.mounts import Mounts
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.connection import connect, connect_to_listen
from wsgi_timeout.watching.housekeeper import Watch
from wsgi_timeout.watching.listener import Listener, Waiter

#: Connections for commands, however many requests wait. With the listener's and the watch's: four.
_COMMAND_CONNECTIONS = 2
#: Enough to keep the connections busy.
_TURNS = 8
#: Seconds that a first request waits for a first look at the workers, at least.
_FIRST_LOOK_SECONDS = 2.0


class Runtime:
    """Built in the process that uses it, with its first request: nothing of it survives a fork."""

    def __init__(self, url: str, name: str, target: str, settings: Settings, threads: float) -> None:
        """Take `threads`, how many requests the server handles at a time."""
        self.calls = Calls(connect(url, connections=_COMMAND_CONNECTIONS), name)
        self.listener = Listener(partial(connect_to_listen, url))
        self.lifeline = Lifeline(self.calls.scripts)
        self.places = Places(settings.max_waiting, threads)
        #: To be held while Redis is asked. In a burst thousands stand in line: here they hold next to
        #: nothing, at the connections each its message, and frames enough for another page of memory.
        self.turns = threading.Semaphore(_TURNS)
        watched = Calls(connect(url, connections=1), name)
        self._watch = Watch(watched, target, settings.lease_seconds, self.places.closing)
        self._patience = max(settings.worker_wait, _FIRST_LOOK_SECONDS)

    def seat(self, call_id: str, environ: Mapping[str, Any], *, hop: int) -> Seat:
        """Let a request wait here for a call; raises `TooManyWaiting`."""
        place = self.places.take(call_id if hop else "")
        try:
            return Seat(place, self.listener.waiter(call_id, environ))
        except BaseException:
            place.__exit__()
            raise

    def check_workers(self) -> None:
        """Raise `NoWorker` while workers of another app or version serve this name.

        Raises `RedisUnavailable` if Redis could never be asked for them yet.
        """
        seen = self._watch.fleet
        if seen is None or not seen.alive:
            # Before the first worker has come up nobody has told yet whether the target is a stub.
            self._watch.look(self._patience)
            seen = self._watch.fleet
        if seen is None:
            raise RedisUnavailable(f"Redis does not tell which workers live: {self._watch.trouble}")
        if seen.stranger:
            raise NoWorker(seen.stranger)

    @property
    def mounts(self) -> Mounts | None:
        """The web functions that workers serve, None if their target is no stub, or none lives."""
        return self._watch.fleet.mounts if self._watch.fleet else None

    def check_label(self, label: str) -> None:
        """Raise `UnknownLabel` if live workers serve a stub, and no web function of this label."""
        if self.mounts is not None and label not in self.mounts.by_label:
            raise UnknownLabel(f"no worker of {self.calls.name!r} serves the web function {label!r}")


#: Seconds that a redirected request's place is kept for its next hop.
_KEPT_SECONDS = 2.0
#: For each place of `max_waiting` there is one more for hops of accepted calls only, and so many besides;
#: but so many threads stay free.
HOP_RESERVE = 8


class Places:
    """Counts who waits in this process, at most `max_waiting`.

    A redirected client comes back at once, and its call was accepted long ago: its place is kept for
    a moment, so that no newcomer makes it end in a 503. After a deploy it comes to a process that has
    kept none for it: hops may be as many as newcomers and more.
    """

    def __init__(self, limit: int, threads: float = math.inf) -> None:
        """Take `max_waiting`, and how many threads there are: some stay free for what does not wait."""
        self.limit = limit
        self._hops = max(limit, min(2 * limit + HOP_RESERVE, threads - HOP_RESERVE))
        #: Ends what was dropped unclosed; without a lock, see `Seat.close_later`.
        self.closing: deque[Callable[[], None]] = deque()
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
            limit = self._hops if call_id else self.limit
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

    __slots__ = ("kept_for", "places")

    def __init__(self, places: Places) -> None:
        self.places = places
        #: The call whose next hop the place is kept for; empty: nobody's.
        self.kept_for = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.places.give_back(self.kept_for)


class Seat:
    """A request that waits: its place in the process, and what wakes it, until the end of a `with` block."""

    __slots__ = ("_passed_on", "_place", "waiter")

    def __init__(self, place: Place, waiter: Waiter) -> None:
        self.waiter = waiter
        self._place = place
        self._passed_on = False

    def keep_place(self) -> None:
        """Keep the place for a moment: the client comes back with the next hop."""
        self._place.kept_for = self.waiter.call_id

    def pass_on(self) -> Self:
        """Outlive this `with` block: whoever gets the seat ends it with another one."""
        self._passed_on = True
        return self

    def close_later(self, close: Callable[[], None]) -> None:
        """Have another thread close what holds the seat, soon. Takes no lock."""
        self._place.places.closing.append(close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._passed_on:
            self._passed_on = False
            return
        with self._place, self.waiter:
            pass
