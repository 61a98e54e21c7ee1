"""What keeps the chunks of slow uploads in Redis until their call is queued."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from wsgi_timeout.store.connection import AWAY, REFUSING, Scripts
from wsgi_timeout.store.keys import UPLOAD_TTL
from wsgi_timeout.watching.listener import Surprises

log = logging.getLogger("wsgi_timeout")

_PAUSE_SECONDS = UPLOAD_TTL / 4


class Lifeline:
    """Renews the TTL of streams whose writer waits for its client, for longer than they live by themselves.

    Whoever reads from a client cannot do it: a server's `read` comes back when all that it was asked for
    is there.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._lock = threading.Lock()
        self._streams: set[str] = set()
        self._thread: threading.Thread | None = None
        self._surprises = Surprises("chunks of uploads")

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

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="wsgi-timeout-uploads", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(_PAUSE_SECONDS)
            with self._lock:
                streams = tuple(self._streams)
                if not streams:
                    self._thread = None
                    return
            with self._surprises:
                self._renew(streams)

    def _renew(self, streams: tuple[str, ...]) -> None:
        try:
            for stream in streams:
                self._scripts.run("keep", [stream], [UPLOAD_TTL])
        except (*AWAY, *REFUSING) as error:
            log.debug("chunks of uploads are not kept now: %s", error)
