"""gunicorn's thread worker with threads of our own, which seldom wake its main thread."""

from __future__ import annotations

import selectors
import time
from collections import deque
from functools import partial
from typing import Any

from gunicorn.workers import gthread

from wsgi_timeout.serving.gunicorn_connection import Connection
from wsgi_timeout.serving.gunicorn_draining import DrainingWorker
from wsgi_timeout.serving.thread_pool import Done, ThreadPool

#: Seconds for which a thread waits for the next request of the connection that it has just answered.
_NEXT_SECONDS = 0.005


class KeepingWorker(DrainingWorker):
    """After nearly every request its thread puts the connection back among those that are waited for."""

    # gunicorn has no annotations.
    tpool: ThreadPool
    alive: bool
    keepalived_conns: deque[Any]
    nr_conns: int
    #: Whether connections are received by threads.
    by_threads = False

    def begin(self, conn: Connection, data: bytes = b"") -> None:
        """Wait for a request of a connection, of which there is some data already."""
        raise NotImplementedError

    def get_thread_pool(self) -> ThreadPool:
        return ThreadPool(self.cfg.threads, self.handle, self._has_next, self._handled)

    def run(self) -> None:
        try:
            super().run()
        finally:
            self.tpool.shutdown()  # in every case: the interpreter waits for these threads

    def enqueue_req(self, conn: Any) -> None:
        self.tpool.submit(conn)

    def take_next(self, conn: Connection, data: bytes) -> bool:
        """Take what has come of a connection's next request; return whether that is all of it."""
        raise NotImplementedError

    def _is_kept(self, conn: Connection, done: Done) -> bool:
        """Return whether a connection waits for its next request, and nothing else is to be done for it."""
        return done.exception() is None and done.result() is True and not (self.by_threads or conn.uploads)

    def _has_next(self, conn: Connection, done: Done) -> bool:
        """Wait a moment for a connection's next request, in the thread that has handled the last one.

        A client that goes on at once need not wait for two threads then: the main one, which waits for all
        connections, and another one, to which that would hand it.
        """
        if not (self.alive and self._is_kept(conn, done) and self.tpool.is_roomy):
            return False
        try:
            data = conn.receive_within(_NEXT_SECONDS)
        except OSError:
            data = b""  # the main thread sees it again
        return data is not None and self.take_next(conn, data)

    def _handled(self, conn: Connection, done: Done) -> None:
        """Go on with a connection, in the thread that has handled its request."""
        if self._is_kept(conn, done):
            # The main thread need not wake for what happens with nearly every request.
            if data := conn.leftover():
                self.method_queue.defer(self.begin, conn, data)
            else:
                self._keep(conn)
        else:
            self.method_queue.defer(self.finish_request, conn, done)

    def _keep(self, conn: Connection) -> None:
        """Have the main thread wait for the next request of a connection; in any thread."""
        conn.without_blocking()
        conn.set_timeout()
        # Before it is registered, since the main thread removes it when something comes; and before we look
        # whether to stop, since that limits the time of all that are there.
        self.keepalived_conns.append(conn)
        if not self.alive:
            conn.timeout = min(conn.timeout, time.monotonic() + gthread.STOP_KEEPALIVE_LINGER)
        try:
            readable = partial(self.on_client_socket_readable, conn)
            self.poller.register(conn.sock, selectors.EVENT_READ, readable)
        except (OSError, ValueError, KeyError):
            self.method_queue.defer(self._drop, conn)

    def _cap_keepalive(self, deadline: float) -> None:
        for conn in tuple(self.keepalived_conns):  # a copy, since threads append to it
            conn.timeout = min(conn.timeout, deadline)

    def _drop(self, conn: Connection) -> None:
        """Close a connection that cannot be waited for, unless that was done."""
        if conn in self.keepalived_conns:
            self.keepalived_conns.remove(conn)
            self.nr_conns -= 1
            conn.close()
