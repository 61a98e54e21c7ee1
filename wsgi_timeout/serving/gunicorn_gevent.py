"""gunicorn's gevent worker that drains at a stop: `-k wsgi_timeout.gunicorn_gevent.GeventWorker`."""

from __future__ import annotations

import math
import os
import warnings
from contextlib import suppress
from functools import partial
from types import FunctionType
from typing import Any

import gevent
from gevent.lock import Semaphore
from gevent.monkey import MonkeyPatchWarning
from gevent.server import StreamServer
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.workers import ggevent

from wsgi_timeout.front.web_server_limits import served_settings
from wsgi_timeout.http.parameters import MARK
from wsgi_timeout.serving.arrival import BODY_AHEAD
from wsgi_timeout.serving.chunked_end import ChunkedEnd
from wsgi_timeout.serving.direct_body import direct
from wsgi_timeout.serving.gunicorn_stopping import StopsGracefully
from wsgi_timeout.serving.paced_socket import PacedSocket
from wsgi_timeout.serving.upload_places import make_room
from wsgi_timeout.settings import Settings
from wsgi_timeout.watching import listener
from wsgi_timeout.watching.sleep import GreenletSleep

#: Seconds between two looks whether a slow upload can make room for one that waits.
_ROOM_SECONDS = 0.1


class GeventWorker(StopsGracefully, ggevent.GeventWorker):
    """Holds thousands of waiting requests, a greenlet each, and answers all of them when told to stop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._servers: list[StreamServer] = []
        self._settings = Settings.load()
        #: How many requests may run while their large body is still arriving; others wait for a place.
        self._upload_places = Semaphore(max(1, self._settings.max_waiting // 2))
        self._uploading: set[PacedSocket] = set()
        #: How many wait for a place.
        self._upload_line = 0

    def patch(self) -> None:
        # gevent remembers for debugging which greenlet has spawned which: half a KB for each.
        gevent.config.track_greenlet_tree = "GEVENT_TRACK_GREENLET_TREE" in os.environ
        with warnings.catch_warnings():
            # redis-py has imported ssl by now; only its asyncio half keeps the unpatched module.
            alone = r"(?s)Monkey-patching ssl after .*\(NOT patched\): \['redis\.asyncio\.connection [^']*'\]"
            warnings.filterwarnings("ignore", alone, MonkeyPatchWarning)
            super().patch()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self._settings = served_settings()

    def _load(self) -> Any:
        app = super()._load()
        # Called as a method it takes 0.8 KB less of the stack, which is kept of each greenlet that waits.
        return app.__call__ if isinstance(vars(type(app)).get("__call__"), FunctionType) else app

    def begin_drain(self) -> None:
        # Outside the signal handler, as gunicorn does it.
        gevent.spawn(self._drain)

    def notify(self) -> None:
        if self.ppid == os.getppid():
            super().notify()
        elif self.alive:
            # gunicorn would exit here, though requests wait.
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False

    def _drain(self) -> None:
        # gunicorn accepts connections for up to a second more. A redirected client would come back to this
        # worker again and again, and use up its redirects.
        for server in self._servers:
            self._accept_the_last(server)
            # Connections that the kernel accepts from now on would not be answered.
            server.close()
        listener.drain()

    def _accept_the_last(self, server: StreamServer) -> None:
        server.stop_accepting()
        with suppress(OSError):
            while not server.full() and (accepted := server.do_read()):
                server.do_handle(*accepted)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Handle a connection once its first request begins to come."""
        client.setblocking(True)
        if self.cfg.is_ssl or self._begins(client):
            # Past gunicorn's gevent worker, which does no more than that.
            super(ggevent.GeventWorker, self).handle(listener, client, addr)
        else:
            client.close()

    def _begins(self, client: Any) -> bool:
        """Wait for the first bytes, as long as gunicorn would; return whether they came.

        It would wait with its parser on the stack, and keep twice as much of that: see `front.turns`.
        """
        came = GreenletSleep()
        watcher = gevent.get_hub().loop.io(client.fileno(), 1)

        def on_bytes() -> None:
            watcher.stop()  # in a burst the loop turns many times before the greenlet goes on
            came.wake()

        watcher.start(on_bytes)
        try:
            return came.wait(self.cfg.keepalive or math.inf)
        finally:
            watcher.stop()
            watcher.close()

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Run the app once the body, or its first 64 KiB, has arrived: a slow client takes no place."""
        reader, paced = req.body.reader, req.unreader.sock
        empty = isinstance(reader, LengthReader) and reader.length == 0
        if not (empty or isinstance(paced, PacedSocket)):
            paced = req.unreader.sock = PacedSocket(sock, least_rate=self._settings.min_upload_rate)
        if isinstance(paced, PacedSocket):
            paced.allow(self._settings.upload_timeout)
        missing = 0 if empty else self._missing(req, paced)
        if missing == 0:
            super().handle_request(listener_name, req, sock, addr)
            return
        self._take_upload_place(paced)
        paced.expect(missing, partial(self._give_upload_place_back, paced))
        req.body = direct(req.body)
        try:
            super().handle_request(listener_name, req, sock, addr)
        finally:
            self._give_upload_place_back(paced)

    def _take_upload_place(self, paced: PacedSocket) -> None:
        self._upload_line += 1
        if self._upload_line == 1:
            gevent.spawn(self._make_room)
        try:
            self._upload_places.acquire()
        finally:
            self._upload_line -= 1
        self._uploading.add(paced)

    def _make_room(self) -> None:
        while self._upload_line:
            make_room(self._uploading, self._upload_line)
            gevent.sleep(_ROOM_SECONDS)

    def _give_upload_place_back(self, paced: PacedSocket) -> None:
        if paced in self._uploading:
            self._uploading.remove(paced)
            self._upload_places.release()

    def _missing(self, req: Any, paced: PacedSocket) -> int | None:
        """Receive a small body; return how many bytes are missing, None if that is unknown."""
        reader = req.body.reader
        length: int | None = reader.length if isinstance(reader, LengthReader) else None
        if length is None and not isinstance(reader, ChunkedReader):
            return 0
        there: bytes = req.unreader.buf.getvalue()
        chunks = ChunkedEnd(there + paced.ahead) if length is None else None
        if chunks:
            paced.follow(chunks)
        if not (MARK in (req.query or "") or getattr(req, "_expected_100_continue", True)):
            wanted = BODY_AHEAD if length is None else min(BODY_AHEAD, length)
            paced.fill(wanted - len(there))
        if length is not None:
            return max(0, length - len(there) - len(paced.ahead))
        return 0 if chunks and chunks.come else None

    def server_class(self, sock: Any, *, spawn: Any, **options: Any) -> StreamServer:
        """Build gunicorn's default server, and remember it."""
        ssl = {"ssl_context": options["ssl_context"]} if "ssl_context" in options else {}
        server = _Server(sock, handle=partial(self.handle, _Name(sock)), spawn=spawn, **ssl)
        if self.cfg.workers > 1:
            server.max_accept = 1
        self._servers.append(server)
        return server


class _Server(StreamServer):
    """gevent's server without a function of its own on each connection's stack: ours closes them too."""

    def do_handle(self, *args: Any) -> None:
        """Handle a new connection in a greenlet of its own."""
        if self.ssl_args:
            super().do_handle(*args)
            return
        try:
            self._spawn(self.handle, *args)
        except BaseException:
            self.do_close(*args)
            raise


class _Name:
    """The name of a listening socket, which stays known after the socket was closed."""

    def __init__(self, listening: Any) -> None:
        self._name = listening.getsockname()

    def getsockname(self) -> Any:
        return self._name
