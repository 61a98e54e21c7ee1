"""`wsgi.input` of a large request: its stream, read as it comes."""

from __future__ import annotations

import io
import secrets
import time

from wsgi_timeout.errors import UploadBroken
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys
from wsgi_timeout.store.queue import Queue
from wsgi_timeout.store.record import text
from wsgi_timeout.store.redis_errors import UNAVAILABLE
from wsgi_timeout.store.streams import StreamReader
from wsgi_timeout.watching.listener import RECHECK_SECONDS
from wsgi_timeout.watching.waiter import Waiter
from wsgi_timeout_jobs.process.interrupts import Interrupts


class SmallBody(io.BytesIO):
    """A body that came with its call; like a server's, it cannot be turned back (PEP 3333)."""

    __slots__ = ()

    def seekable(self) -> bool:
        return False

    def seek(self, _offset: int, _whence: int = 0, /) -> int:
        raise io.UnsupportedOperation("wsgi.input cannot seek")


class Uploader:
    """The web process that sends a request body: whether it still pops its inbox.

    A client may pause, or send so little that no chunk is full: silence alone proves nothing.
    """

    def __init__(self, queue: Queue, call_id: str) -> None:
        self._redis = queue.redis
        self._stream = keys.request_body(call_id)
        self._lease_seconds = Settings.load().lease_seconds
        self.forget()

    def forget(self) -> None:
        """Begin anew: what was not seen through an unbroken connection proves nothing."""
        self._inbox = self._message = ""
        self._since = self._looked = time.monotonic()

    def is_gone(self) -> bool:
        """Look; True when a message was left unread for `lease_seconds`."""
        now, before = time.monotonic(), self._looked
        self._looked = now
        if now - before > max(self._lease_seconds / 2, 2 * RECHECK_SECONDS):
            # This process was stopped, or its handler read nothing: the other may have stopped with it.
            self.forget()
        if self._message and self._redis.lpos(self._inbox, self._message) is not None:
            return now - self._since > self._lease_seconds
        self.forget()
        if uploader := self._redis.hget(self._stream, "uploader"):
            # It names no call, so that it wakes nobody.
            self._inbox, self._message = keys.inbox(text(uploader)), f"ping-{secrets.token_hex(8)}"
            pipe = self._redis.pipeline(transaction=False)
            pipe.lpush(self._inbox, self._message)
            pipe.expire(self._inbox, keys.INBOX_TTL)
            pipe.execute()
        return False


class RequestBody(io.RawIOBase):
    """Reads a stream; an upload that was cut short raises, it never looks like a complete one."""

    def __init__(
        self, reader: StreamReader, waiter: Waiter, interrupts: Interrupts, uploader: Uploader
    ) -> None:
        self._reader = reader
        self._uploader = uploader
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
        asked = time.monotonic()
        while not self._chunks:
            if self._reader.end == "complete":
                return b""
            if self._reader.end == "broken" or self._reader.missing:
                raise UploadBroken("the client broke its upload off")
            self._waiter.reset()
            try:
                with self._interrupts.shield():
                    self._chunks = self._reader.poll()
                    gone = time.monotonic() - asked > RECHECK_SECONDS and self._uploader.is_gone()
            except UNAVAILABLE:
                self._uploader.forget()
                self._waiter.wait(RECHECK_SECONDS)
                continue
            if not self._chunks and not self._reader.end and not self._reader.missing:
                if gone:
                    raise UploadBroken("the web process that received the upload is gone")
                self._waiter.wait(RECHECK_SECONDS)
        return self._chunks.pop(0)


def buffered(body: RequestBody) -> io.BufferedReader:
    """Return the body with `read`, `readline` and iteration as PEP 3333 wants them."""
    return io.BufferedReader(body, 64 * 1024)
