"""gunicorn's thread worker, made fit for requests that wait: it drains, and closes without blocking."""

from __future__ import annotations

import logging
import selectors
import time
import traceback
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any

from gunicorn import __version__, version_info
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.util import make_fail_app
from gunicorn.workers import gthread

from wsgi_timeout.http.urls import TOKEN
from wsgi_timeout.reloading import Reloader
from wsgi_timeout.watching import listener

#: Seconds and bytes for which a closed connection is still read, as in gunicorn's `close_graceful`.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 65_536


#: The first gunicorn whose gthread `PatientWorker` can build on.
_OLDEST = (26,)


class DrainingWorker(gthread.ThreadWorker):
    """gunicorn's own gthread, of any version, that answers every waiter when told to stop."""

    @property
    def alive(self) -> bool:
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        # gunicorn clears it for every reason to stop but one: signals, max_requests, a reload.
        self._alive = value
        if not value:
            listener.drain()

    def is_parent_alive(self) -> bool:
        there: bool = super().is_parent_alive()
        if not there:
            # gunicorn leaves its loop, and would cut off whoever still waits when graceful_timeout is over.
            self.alive = False
        return there

    def load_wsgi(self) -> None:
        if not self.cfg.reload:
            super().load_wsgi()
            return
        # gunicorn's own misses an edit before its first look. It starts this one in its place.
        self.reloader = Reloader()
        try:
            self.wsgi = self.app.wsgi()
        except Exception as error:
            # gunicorn outlives a SyntaxError only.
            self.log.exception("the app cannot be loaded: waiting for an edit")
            self.wsgi = make_fail_app("".join(traceback.format_exception(error)))


class PatientWorker(DrainingWorker):
    """Never waits for a client in its main thread.

    gthread closes connections there, up to 2 s each (RFC 9112 section 9.6 wants the lingering), so
    that a few clients that are slow to close would delay all others.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lingering: deque[_Lingering] = deque()

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        if fs.cancelled() or fs.exception() is not None or fs.result() is not False:
            super().finish_request(conn, fs)
            return
        try:
            lingering = _Lingering(conn)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._linger, lingering))
            self._lingering.append(lingering)
        except (OSError, ValueError, KeyError):
            self.nr_conns -= 1
            conn.close()

    def murder_pending(self) -> None:
        super().murder_pending()
        now = time.monotonic()
        while self._lingering and (self._lingering[0].closed or self._lingering[0].deadline <= now):
            self._let_go(self._lingering.popleft())

    def _linger(self, lingering: _Lingering, _sock: Any) -> None:
        if lingering.read_on():
            self._let_go(lingering)

    def _let_go(self, lingering: _Lingering) -> None:
        if not lingering.closed:
            lingering.closed = True
            self.poller.unregister(lingering.conn.sock)
            self.nr_conns -= 1
            lingering.conn.close()


ThreadWorker = PatientWorker if version_info >= _OLDEST else DrainingWorker


def limits() -> str:
    """Return what this gunicorn is too old for, empty if it is not."""
    if ThreadWorker is PatientWorker:
        return ""
    return (
        f"gunicorn {__version__} serves with its own gthread worker: clients that are slow to send or to "
        f"close can delay others; gunicorn {_OLDEST[0]} or newer has no such limit"
    )


class _Lingering:
    """A connection on which we have said all, and wait for the client to close."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.deadline = time.monotonic() + _LINGER_SECONDS
        self.closed = False
        self._left = _LINGER_BYTES
        conn.sock.setblocking(False)
        conn.sock.shutdown(1)  # SHUT_WR

    def read_on(self) -> bool:
        """Read what is there; True if the connection can be closed."""
        try:
            data = self.conn.sock.recv(_LINGER_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self._left -= len(data)
        return not data or self._left <= 0


class Logger(GunicornLogger):
    """gunicorn's logger for our lines too, without our tokens: whoever has one can read the result."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        ours = logging.getLogger("wsgi_timeout")
        ours.handlers, ours.propagate = self.error_log.handlers, False
        ours.setLevel(self.error_log.level)
        for logger in (self.error_log, self.access_log):
            if not any(isinstance(item, _Redaction) for item in logger.filters):
                logger.addFilter(_Redaction())

    def atoms(self, resp: Any, req: Any, environ: Any, request_time: Any) -> dict[str, Any]:
        atoms: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        # For its own error answers gunicorn makes an environ without a path.
        atoms["U"] = atoms["U"] or getattr(req, "path", "-")
        return atoms


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        redacted = TOKEN.sub(r"\1.-", message)
        if redacted is not message:
            record.msg, record.args = redacted, ()
        return True
