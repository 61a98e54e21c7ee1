"""gunicorn's thread worker for requests that wait: no thread is blocked by a slow client, and it drains."""

from __future__ import annotations

import selectors
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn import __version__, version_info

from wsgi_timeout.front.put_off import PutOff
from wsgi_timeout.front.web_server_limits import served_settings
from wsgi_timeout.serving.arrival import Arrival
from wsgi_timeout.serving.direct_body import direct
from wsgi_timeout.serving.gunicorn_connection import Connection
from wsgi_timeout.serving.gunicorn_draining import DrainingWorker
from wsgi_timeout.serving.gunicorn_keeping import KeepingWorker
from wsgi_timeout.serving.lingering import Lingering
from wsgi_timeout.serving.put_off_line import PutOffLine, repeat_of
from wsgi_timeout.serving.thread_pool import Done
from wsgi_timeout.serving.upload_places import make_room
from wsgi_timeout.settings import Settings

#: The first gunicorn whose gthread `PatientWorker` can build on.
_OLDEST = (27,)
#: Seconds for which a thread reads the rest of a body that the app left, to keep the connection usable.
_DRAIN_SECONDS = 0.5
#: Seconds between two looks at deadlines: under load the loop turns thousands of times a second.
_SWEEP_SECONDS = 0.1
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"
)


class PatientWorker(KeepingWorker):
    """Uses threads only for requests that need not wait for their client.

    gthread gives each connection a thread that blocks for head and body as long as the client likes, and its
    main thread blocks up to 2 s to close a connection (the lingering of RFC 9112 section 9.6). Here the main
    thread receives heads and small bodies, and lingers, without ever blocking.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = Settings.load()
        self._lingering: deque[Lingering] = deque()
        self._put_off = PutOffLine()
        #: Connections that are not HTTP/1 are handled by threads: reading their frames blocks.
        self.by_threads = "h2" in getattr(self.cfg, "http_protocols", ()) or self.cfg.protocol != "http"
        #: Connections whose request is arriving, the oldest first.
        self._arriving: dict[Connection, Arrival] = {}
        #: How many requests whose large body is still arriving have a thread; others wait for one.
        self._upload_places = max(1, min(self.cfg.threads // 4, self._settings.max_waiting // 2))
        self._uploading: set[Connection] = set()
        self._upload_line: deque[Connection] = deque()
        # Half of the connections, so that a flood of incomplete heads leaves room for others.
        self._most_arriving = max(1, self.worker_connections // 2)
        self._most_in_line = max(1, self.worker_connections // 4)
        self._next_sweep = 0.0

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self._settings = served_settings()
        self.wsgi = self._put_off.offer(self.wsgi)

    def handle(self, conn: Any) -> Any:
        return self._put_off.run(conn, super().handle)

    def handle_request(self, req: Any, conn: Any) -> Any:
        req.body = direct(req.body)
        return super().handle_request(req, conn)

    # -- how a request comes in

    def accept(self, listener: Any) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            sock, client = listener.accept()
            self.nr_conns += 1
            conn = Connection(self.cfg, sock, client, listener.getsockname(), self._settings)
            if self.by_threads:
                self.enqueue_req(conn)
            elif self._is_usable(conn):
                self.begin(conn)

    def _is_usable(self, conn: Connection) -> bool:
        """Return whether a new connection can be used, or its client has closed it before a TLS handshake."""
        try:
            if self.cfg.is_ssl:
                conn.start_tls()
        except OSError:
            self.nr_conns -= 1
            conn.close()
            return False
        return True

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001 - gunicorn's own
        if not enabled and not self.alive:
            self._accept_the_last()
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            # Connections that the kernel accepts from now on would not be answered.
            for sock in self.sockets:
                sock.close()

    def _accept_the_last(self) -> None:
        for listening in self.sockets:
            for _ in range(self.cfg.backlog):
                before = self.nr_conns
                with suppress(OSError):
                    self.accept(listening)
                if self.nr_conns == before:
                    break

    def on_client_socket_readable(self, conn: Any, client: Any) -> None:
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        if self.by_threads:
            self.enqueue_req(conn)
        else:
            self.begin(conn)

    def begin(self, conn: Connection, data: bytes = b"") -> None:
        """Wait for a request of this connection, without a thread."""
        settings = self._settings
        conn.without_blocking()
        arrival = Arrival(conn, seconds=settings.head_timeout, rate=settings.min_upload_rate)
        self._arriving[conn] = arrival
        if data:
            arrival.feed(data, settings.upload_timeout)
        if arrival.ready:
            self._has_arrived(arrival)
        else:
            self._read_on(arrival)
        if len(self._arriving) > self._most_arriving:
            self._give_up(next(iter(self._arriving.values())))

    def _read_on(self, arrival: Arrival, _sock: Any = None) -> None:
        conn = arrival.conn
        try:
            data = conn.receive()
            arrival.feed(data, self._settings.upload_timeout)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        if arrival.ready or data == b"":
            self._has_arrived(arrival)
        elif not arrival.registered:
            arrival.registered = True
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._read_on, arrival))

    def _has_arrived(self, arrival: Arrival) -> None:
        conn = arrival.conn
        self._forget(arrival)
        if not arrival.data:  # the client has closed it without a request
            self.nr_conns -= 1
            conn.close()
            return
        self._put_ahead(conn, arrival)
        if arrival.missing == 0:
            self.enqueue_req(conn)
            return
        conn.paced.expect(arrival.missing, partial(self.method_queue.defer, self._upload_arrived, conn))
        if self._upload_places:
            self._start_upload(conn)
        elif len(self._upload_line) < self._most_in_line:
            self._upload_line.append(conn)
            self._make_room()
        else:
            self._refuse(conn, _TOO_MANY)

    def _put_ahead(self, conn: Connection, arrival: Arrival) -> None:
        """Have gunicorn's parser read what has arrived."""
        conn.data_ready = True
        conn.paced.put_ahead(arrival.data)
        conn.paced.allow(self._settings.upload_timeout)
        if arrival.chunks:
            conn.paced.follow(arrival.chunks)
        conn.repeat = repeat_of(arrival.data) if arrival.missing == 0 else None

    def take_next(self, conn: Connection, data: bytes) -> bool:
        settings = self._settings
        arrival = Arrival(conn, seconds=settings.head_timeout, rate=settings.min_upload_rate)
        arrival.feed(data, settings.upload_timeout)
        if arrival.ready and arrival.missing == 0:
            self._put_ahead(conn, arrival)
            return True
        # The main thread waits for the rest.
        conn.paced.put_ahead(arrival.data)
        return False

    def _start_upload(self, conn: Connection) -> None:
        self._upload_places -= 1
        conn.uploads = True
        self._uploading.add(conn)
        self.enqueue_req(conn)

    def _make_room(self) -> None:
        if self._upload_line:
            make_room([conn.paced for conn in self._uploading], len(self._upload_line))

    def _upload_arrived(self, conn: Connection) -> None:
        if conn.uploads:
            conn.uploads = False
            self._uploading.remove(conn)
            self._upload_places += 1
            if self._upload_line:
                self._start_upload(self._upload_line.popleft())

    def _forget(self, arrival: Arrival) -> None:
        del self._arriving[arrival.conn]
        if arrival.registered:
            self.poller.unregister(arrival.conn.sock)

    def _give_up(self, arrival: Arrival) -> None:
        """End a connection whose request does not arrive."""
        self._forget(arrival)
        if arrival.data:
            self._refuse(arrival.conn, _TOO_SLOW)
        else:
            self.nr_conns -= 1
            arrival.conn.close()

    def _refuse(self, conn: Connection, answer: bytes) -> None:
        with suppress(OSError):
            conn.send(answer)
        self._close_slowly(conn)

    def _keepalive_after(self, conn: Any, keepalive: Any) -> bool:
        if keepalive and conn.body_is_read():
            conn.parser.mesg = None  # else its parser looks for the rest of the body again
            return True
        # gunicorn would block this thread for 5 s for the rest of the body.
        return bool(keepalive and conn.parser.finish_body(deadline=time.monotonic() + _DRAIN_SECONDS))

    # -- how a connection goes on, or ends

    def finish_request(self, conn: Any, fs: Done) -> None:
        self._upload_arrived(conn)
        error = fs.exception()
        if isinstance(error, PutOff):
            self._put_off.add(conn)
        elif error is not None or fs.result() is False:
            self._close_slowly(conn)
        elif fs.result() is not True or self.by_threads:
            super().finish_request(conn, fs)
        elif data := conn.leftover():
            self.begin(conn, data)
        else:
            self._keep(conn)

    def murder_pending(self) -> None:
        now = time.monotonic()
        if now < self._next_sweep and self.alive:
            return
        self._next_sweep = now + _SWEEP_SECONDS
        super().murder_pending()
        self._make_room()
        while self._lingering and (self._lingering[0].closed or self._lingering[0].deadline <= now):
            self._close_lingering(self._lingering.popleft())
        for conn in self._put_off.due(all_of_them=not self.alive):
            self.enqueue_req(conn)
        for arrival in [each for each in self._arriving.values() if each.deadline <= now]:
            self._give_up(arrival)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for arrival in self._arriving.values():
            arrival.deadline = min(arrival.deadline, deadline)

    def _close_slowly(self, conn: Any) -> None:
        try:
            lingering = Lingering(conn)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._linger, lingering))
            self._lingering.append(lingering)
        except (OSError, ValueError, KeyError):
            self.nr_conns -= 1
            conn.close()

    def _linger(self, lingering: Lingering, _sock: Any) -> None:
        if lingering.read_on():
            self._close_lingering(lingering)

    def _close_lingering(self, lingering: Lingering) -> None:
        if not lingering.closed:
            lingering.closed = True
            self.poller.unregister(lingering.conn.sock)
            self.nr_conns -= 1
            lingering.conn.close()


ThreadWorker = PatientWorker if version_info >= _OLDEST else DrainingWorker


def limits() -> str:
    """Return what this version of gunicorn cannot do; empty if it is new enough."""
    if ThreadWorker is PatientWorker:
        return ""
    return (
        f"gunicorn {__version__} serves with its own gthread worker: clients that are slow to send or to "
        f"close can delay others; gunicorn {_OLDEST[0]} or newer has no such limit"
    )
