"""What one web process has for one name: connections, calls, the listener, the housekeeper."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from wsgi_timeout import identity
from wsgi_timeout.errors import NoWorker, RedisUnavailable, UnknownLabel
from wsgi_timeout.front.places import Places, Seat
from wsgi_timeout.front.spool import Spooler
from wsgi_timeout.front.turns import Turns
from wsgi_timeout.front.upload_ttl import UploadKeeper
from wsgi_timeout.front.web_server import WebServer
from wsgi_timeout.http.mounts import Mounts
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import seals
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.connection import connect, connect_to_listen
from wsgi_timeout.store.redis_errors import Silent
from wsgi_timeout.store.time_limit import seconds_left
from wsgi_timeout.store.web_list import WebProcess, pid_namespace, process_here
from wsgi_timeout.store.workers import Workers
from wsgi_timeout.watching.housekeeper import Housekeeper
from wsgi_timeout.watching.listener import Listener

#: Connections for commands, however many requests wait. The listener and the housekeeper have one each.
_COMMAND_CONNECTIONS = 2
#: How many threads may use the connections at a time: enough to keep them busy.
_TURNS = 8
#: Seconds that a hop waits for its turn, at most.
_TURN_SECONDS = 30.0
#: Seconds that a first request waits for a first look at the workers, at least.
_FIRST_LOOK_SECONDS = 2.0


class Runtime:
    """Made with the first request of a process, and used in that process only: a fork makes a new one."""

    def __init__(self, url: str, name: str, target: str, settings: Settings, server: WebServer) -> None:
        """Connect; `server` is what this process runs under."""
        self.calls = Calls(connect(url, connections=_COMMAND_CONNECTIONS), name)
        self.listener = Listener(partial(connect_to_listen, url))
        self.uploads = UploadKeeper(self.calls.scripts)
        self.places = Places(settings.max_waiting, server.threads, name)
        self.spooler = Spooler(settings.max_response_file)
        #: Held while Redis is asked. In a burst thousands of threads wait here, where they need little
        #: memory; if they waited for a connection, each would hold its packed request.
        self.turns = Turns(_TURNS)
        watched = Workers(connect(url, connections=1), name)
        self._housekeeper = Housekeeper(
            watched,
            target,
            settings.lease_seconds,
            self.places.closing,
            self.listener,
            partial(_described, server, settings),
        )
        self._patience = max(settings.worker_wait, _FIRST_LOOK_SECONDS)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold one of `turns`; raises `Silent` if none comes free in the time that `within` leaves."""
        if not self.turns.acquire(timeout=max(0.0, seconds_left(_TURN_SECONDS))):
            raise Silent("too many wait for it")
        try:
            yield
        finally:
            self.turns.release()

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
        seen = self._housekeeper.live_workers
        if seen is None or not seen.alive:
            # Whether the target is a stub is known only once a worker has started.
            self._housekeeper.check_now(self._patience)
            seen = self._housekeeper.live_workers
        if seen is None:
            raise RedisUnavailable(f"Redis does not tell which workers live: {self._housekeeper.trouble}")
        if trouble := seen.mismatch or seen.other_version or seen.other_secret:
            raise NoWorker(trouble)

    @property
    def mounts(self) -> Mounts | None:
        """The web functions that live workers serve; None: their target is no stub, or there are none."""
        return self._housekeeper.live_workers.mounts if self._housekeeper.live_workers else None

    def check_label(self, label: str) -> None:
        """Raise `UnknownLabel` if live workers serve a stub that has no web function of this label."""
        if self.mounts is not None and label not in self.mounts.by_label:
            raise UnknownLabel(f"no worker of {self.calls.name!r} serves the web function {label!r}")


def _described(server: WebServer, settings: Settings) -> WebProcess:
    """Return what this process tells of itself, for `wsgi-timeout doctor`."""
    return WebProcess(
        process=process_here(),
        server=server.name,
        threads=server.threads,
        timeout=server.timeout,
        max_waiting=settings.max_waiting,
        wait_seconds=settings.wait_seconds,
        secret=seals.fingerprint(),
        version=identity.version(),
        clock=time.time(),
        pid_namespace=pid_namespace(),
    )
