"""A large request body under our worker classes, which is received without copies of it.

gunicorn's own passes through three buffers, each of which copies what it gives out and what it keeps.
"""

from __future__ import annotations

import io
from typing import Any

from gunicorn.http.body import Body, LengthReader
from gunicorn.http.unreader import SocketUnreader

from wsgi_timeout.http.direct_input import DirectInput
from wsgi_timeout.serving.arrival import BODY_AHEAD
from wsgi_timeout.serving.paced_socket import PacedSocket


class DirectBody(Body, DirectInput):
    """gunicorn's body of a known length, read from a `PacedSocket`."""

    reader: Any
    buf: io.BytesIO

    def receive_into(self, buffer: memoryview) -> int:
        count = self._receive_into(buffer, wait=True)
        assert count is not None
        return count

    def receive_into_now(self, buffer: memoryview) -> int | None:
        return self._receive_into(buffer, wait=False)

    def _receive_into(self, buffer: memoryview, *, wait: bool) -> int | None:
        if data := self._received(len(buffer)):
            buffer[: len(data)] = data
            return len(data)
        reader, sock = self.reader, self.reader.unreader.sock
        buffer = buffer[: reader.length]
        if not buffer:
            return 0
        try:
            count: int | None = sock.recv_into(buffer) if wait else sock.recv_into_now(buffer)
        except Exception:
            self.failed = True  # as gunicorn notes that the connection cannot be used again
            raise
        reader.length -= count or 0
        return count

    def _received(self, size: int) -> bytes:
        """Return what gunicorn's own buffers hold of this body, `size` bytes at most."""
        if self.buf.tell():
            held = self.buf.getvalue()
            self.buf = io.BytesIO()
            self.buf.write(held[size:])
            return held[:size]
        reader = self.reader
        there = reader.unreader.buf.getbuffer().nbytes
        data: bytes = reader.read(min(size, there, reader.length)) if there else b""
        return data


def direct(body: Any) -> Any:
    """Return a request's body, as a `DirectBody` if it is a large one of gunicorn's that can be."""
    reader = body.reader
    if type(reader) is not LengthReader or reader.length <= BODY_AHEAD or type(body) is not Body:
        return body
    unreader = reader.unreader
    is_paced = type(unreader) is SocketUnreader and isinstance(unreader.sock, PacedSocket)
    return DirectBody(reader) if is_paced and not body.buf.tell() else body
