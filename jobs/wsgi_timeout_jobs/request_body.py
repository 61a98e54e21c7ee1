"""`wsgi.input` of a large request: its stream, read as it comes."""

from __future__ import annotations

import io

from wsgi_timeout.connection import AWAY, REFUSING
from wsgi_timeout.errors import UploadBroken
from wsgi_timeout.streams import StreamReader
from wsgi_timeout.waiting import RECHECK_SECONDS, Waiter
from wsgi_timeout_jobs.interrupts import Interrupts


class SmallBody(io.BytesIO):
    """A body that came with its call; like a server's, it cannot be turned back (PEP 3333)."""

    __slots__ = ()

    def seekable(self) -> bool:
        return False

    def seek(self, _offset: int, _whence: int = 0, /) -> int:
        raise io.UnsupportedOperation("wsgi.input cannot seek")


class RequestBody(io.RawIOBase):
    """Reads a stream; an upload that was cut short raises, it never looks like a complete one."""

    def __init__(self, reader: StreamReader, waiter: Waiter, interrupts: Interrupts) -> None:
        self._reader = reader
        self._waiter = waiter
        self._interrupts = interrupts
        self._data = memoryview(b"")
        self._chunks: list[bytes] = []

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if not self._data:
            self._data = memoryview(self._next())
        size = min(len(buffer), len(self._data))
        buffer[:size] = self._data[:size]
        self._data = self._data[size:]
        return size

    def _next(self) -> bytes:
        """Return the next chunk, empty at the end. Raises `UploadBroken`."""
        while not self._chunks:
            if self._reader.end == "complete":
                return b""
            if self._reader.end == "broken" or self._reader.missing:
                raise UploadBroken("the client broke its upload off")
            self._waiter.reset()
            try:
                with self._interrupts.shield():
                    self._chunks = self._reader.poll()
            except (*AWAY, *REFUSING):
                self._waiter.wait(RECHECK_SECONDS)
                continue
            if not self._chunks and not self._reader.end and not self._reader.missing:
                self._waiter.wait(RECHECK_SECONDS)
        return self._chunks.pop(0)


def buffered(body: RequestBody) -> io.BufferedReader:
    """Return the body with `read`, `readline` and iteration as PEP 3333 wants them."""
    return io.BufferedReader(body, 64 * 1024)
