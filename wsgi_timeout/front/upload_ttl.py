"""What looks after the chunks of uploads where the request's own thread cannot."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wsgi_timeout.log_once import LogOnce
from wsgi_timeout.store.connection import Scripts
from wsgi_timeout.store.keys import UPLOAD_TTL
from wsgi_timeout.store.redis_errors import UNAVAILABLE

log = logging.getLogger("wsgi_timeout")

_PAUSE_SECONDS = UPLOAD_TTL / 4
#: Seconds between two tries to end a body while Redis is away.
_RETRY_SECONDS = 0.5


class UploadKeeper:
    """Keeps chunks whose writer waits for its client, and ends bodies that an outage left open.

    The thread that reads from a client cannot renew a TTL: a server's `read` comes back when all that it was
    asked for is there. One thread, which lives while there is something to do.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._lock = threading.Lock()
        self._streams: set[str] = set()
        #: How to end a body, and the monotonic time until which that is tried.
        self._closings: list[tuple[Callable[[], None], float]] = []
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._surprises = LogOnce("chunks of uploads")

    @contextmanager
    def hold(self, stream: str) -> Iterator[None]:
        """Keep a stream while the block runs."""
        try:
            with self._lock:
                self._streams.add(stream)
                # Few uploads need it: where no thread can start, this one goes on, and the next tries again.
                with self._surprises:
                    self._start()
            yield
        finally:
            with self._lock:
                self._streams.discard(stream)

    def close_later(self, close: Callable[[], None], seconds: float) -> None:
        """Call `close` again and again until Redis takes it, for so many seconds at most."""
        with self._lock, self._surprises:
            self._closings.append((close, time.monotonic() + seconds))
            self._woken.set()
            self._start()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="wsgi-timeout-uploads", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._woken.wait(_RETRY_SECONDS if self._closings else _PAUSE_SECONDS)
            self._woken.clear()
            with self._lock:
                streams, closings = tuple(self._streams), tuple(self._closings)
                if not streams and not closings:
                    self._thread = None
                    return
            with self._surprises:
                self._renew(streams)
            for closing in closings:
                with self._surprises:
                    self._close(closing)

    def _renew(self, streams: tuple[str, ...]) -> None:
        try:
            for stream in streams:
                self._scripts.run("keep", [stream], [UPLOAD_TTL])
        except UNAVAILABLE as error:
            log.debug("chunks of uploads are not kept now: %s", error)

    def _close(self, closing: tuple[Callable[[], None], float]) -> None:
        close, deadline = closing
        again = False
        try:
            close()
        except UNAVAILABLE:
            again = time.monotonic() < deadline
        finally:
            if not again:
                with self._lock:
                    self._closings.remove(closing)
