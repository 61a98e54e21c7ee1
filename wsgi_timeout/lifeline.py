"""What keeps the chunks of slow uploads in Redis until their call is queued."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from wsgi_timeout.connection import AWAY, REFUSING, Scripts
from wsgi_timeout.keys import UPLOAD_TTL

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

    @contextmanager
    def hold(self, stream: str) -> Iterator[None]:
        """Keep a stream while the block runs."""
        with self._lock:
            self._streams.add(stream)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="wsgi-timeout-uploads", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._streams.discard(stream)

    def _renew(self) -> None:
        while True:
            time.sleep(_PAUSE_SECONDS)
            with self._lock:
                streams = tuple(self._streams)
                if not streams:
                    self._thread = None
                    return
            try:
                for stream in streams:
                    self._scripts.run("keep", [stream], [UPLOAD_TTL])
            except (*AWAY, *REFUSING) as error:
                log.debug("chunks of uploads are not kept now: %s", error)
