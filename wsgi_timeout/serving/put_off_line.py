"""Requests that wait for a place without a thread: their bytes are kept, and handled again later."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from wsgi_timeout.front.put_off import PUT_OFF_KEY
from wsgi_timeout.http.parameters import MARK

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

#: Seconds after which such a request is run again.
_AGAIN_SECONDS = 1.0
_MARK = MARK.encode()


class Repeat:
    """The bytes of one whole request on a URL of ours, and since when it is put off."""

    __slots__ = ("data", "since")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.since = 0.0

    def seconds(self) -> float:
        """Return for how long it was put off."""
        return time.monotonic() - self.since if self.since else 0.0


def repeat_of(data: bytes | bytearray) -> Repeat | None:
    """Return what is kept to run a request again; None for one that is not on a URL of ours."""
    return Repeat(bytes(data)) if data.find(_MARK, 0, max(0, data.find(b"\r\n"))) >= 0 else None


class PutOffLine:
    """Connections whose request is run again in a moment, the first due first."""

    def __init__(self) -> None:
        self._line: deque[tuple[float, Any]] = deque()
        self._running = threading.local()

    def offer(self, app: WSGIApplication) -> WSGIApplication:
        """Return `app` with a key in the environ of requests that can be put off."""

        def outer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            repeat = self._running.conn.repeat
            if repeat is not None:
                environ[PUT_OFF_KEY] = repeat.seconds()
            return app(environ, start_response)

        return outer

    def run(self, conn: Any, handle: Callable[[Any], Any]) -> Any:
        """Have this thread handle a connection."""
        self._running.conn = conn
        return handle(conn)

    def add(self, conn: Any) -> None:
        """Put off the request that a connection has sent."""
        now = time.monotonic()
        conn.repeat.since = conn.repeat.since or now
        self._line.append((now + _AGAIN_SECONDS, conn))

    def due(self, *, all_of_them: bool) -> Iterator[Any]:
        """Put back the bytes of each request that is to be run again, and yield its connection."""
        now = time.monotonic()
        while self._line and (all_of_them or self._line[0][0] <= now):
            conn = self._line.popleft()[1]
            conn.leftover()
            conn.parser.mesg = None
            conn.paced.put_ahead(conn.repeat.data)
            yield conn
