"""A thread that keeps the chunks of slow uploads from expiring, and ends bodies after an outage."""

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
    """Renews the TTL of chunks while their sender is slow, and ends bodies that an outage left open.

    The thread that reads from a client cannot do this: the server's `read` blocks until all that was asked
    for has arrived. One thread does it for the whole process, and ends when there is nothing to do.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._lock = threading.Lock()
        self._streams: set[str] = set()
        #: Functions that end a body, each with the monotonic time until which it is tried.
        self._closings: list[tuple[Callable[[], None], float]] = []
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._log_once = LogOnce("chunks of uploads")

    @contextmanager
    def hold(self, stream: str) -> Iterator[None]:
        """Keep a stream from expiring while a `with` block runs."""
        try:
            with self._lock:
                self._streams.add(stream)
                # If no thread can be started the upload goes on: few need it, and the next one tries again.
                with self._log_once:
                    self._start()
            yield
        finally:
            with self._lock:
                self._streams.discard(stream)

    def close_later(self, close: Callable[[], None], seconds: float) -> None:
        """Call `close` until it succeeds, for so many seconds at most."""
        with self._lock, self._log_once:
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
            with self._log_once:
                self._renew(streams)
            for closing in closings:
                with self._log_once:
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
