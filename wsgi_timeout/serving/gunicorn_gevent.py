"""gunicorn's gevent worker that drains at a stop: `-k wsgi_timeout.gunicorn_gevent.GeventWorker`."""

from __future__ import annotations

import os
import warnings
from functools import partial
from typing import Any

import gevent
from gevent.monkey import MonkeyPatchWarning
from gevent.server import StreamServer
from gunicorn.workers import ggevent

from wsgi_timeout.watching import listener


class GeventWorker(ggevent.GeventWorker):
    """Holds thousands of waiting requests, a greenlet each, and answers all of them when told to stop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._servers: list[StreamServer] = []

    def patch(self) -> None:
        with warnings.catch_warnings():
            # redis-py imports ssl before we are here. Its asyncio half alone keeps what is not patched.
            alone = r"(?s)Monkey-patching ssl after .*\(NOT patched\): \['redis\.asyncio\.connection [^']*'\]"
            warnings.filterwarnings("ignore", alone, MonkeyPatchWarning)
            super().patch()

    @property
    def alive(self) -> bool:
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        self._alive = value
        if not value:
            # Out of the signal handler, as gunicorn does it.
            gevent.spawn(self._drain)

    def notify(self) -> None:
        if self.ppid == os.getppid():
            super().notify()
        elif self.alive:
            # gunicorn exits here, under all who wait.
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False

    def _drain(self) -> None:
        # gunicorn goes on accepting for up to a second, in which a redirected client would come back to
        # this worker again and again, until it has no redirect left.
        for server in self._servers:
            server.stop_accepting()
        listener.drain()

    def server_class(self, sock: Any, *, spawn: Any, **options: Any) -> StreamServer:
        """Return the server that gunicorn makes itself where this is not given, known to us."""
        ssl = {"ssl_context": options["ssl_context"]} if "ssl_context" in options else {}
        server = StreamServer(sock, handle=partial(self.handle, sock), spawn=spawn, **ssl)
        if self.cfg.workers > 1:
            server.max_accept = 1
        self._servers.append(server)
        return server
