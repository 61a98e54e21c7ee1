"""`wsgi.input` of a request: a small body in memory, or a large one read from its stream as it arrives."""

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
from wsgi_timeout.store.seals import SealedChunks
from wsgi_timeout.store.streams import StreamReader
from wsgi_timeout.watching.listener import RECHECK_SECONDS
from wsgi_timeout.watching.waiter import Waiter
from wsgi_timeout_jobs.process.interrupts import Interrupts


class SmallBody(io.BytesIO):
    """A body that came with its call; like a server's `wsgi.input`, it cannot seek (PEP 3333)."""

    __slots__ = ()

    def seekable(self) -> bool:
        return False

    def seek(self, _offset: int, _whence: int = 0, /) -> int:
        raise io.UnsupportedOperation("wsgi.input cannot seek")


class Uploader:
    """Finds out whether the web process that sends a request body is alive: whether it empties its inbox.

    A body that stops arriving proves nothing: the client may pause, or send too slowly to fill a chunk.
    """

    def __init__(self, queue: Queue, call_id: str) -> None:
        self._redis = queue.redis
        self._stream = keys.request_body(call_id)
        self._lease_seconds = Settings.load().lease_seconds
        self.forget()

    def forget(self) -> None:
        """Start the observation anew: it only counts over an unbroken connection."""
        self._inbox = self._message = ""
        self._since = self._looked = time.monotonic()

    def is_gone(self) -> bool:
        """Check the inbox; return True once a message has lain there unread for `lease_seconds`."""
        now, before = time.monotonic(), self._looked
        self._looked = now
        if now - before > max(self._lease_seconds / 2, 2 * RECHECK_SECONDS):
            # This process was frozen, or its handler did not read: the other may have been frozen too.
            self.forget()
        if self._message and self._redis.lpos(self._inbox, self._message) is not None:
            return now - self._since > self._lease_seconds
        self.forget()
        if uploader := self._redis.hget(self._stream, "uploader"):
            # A message that names no call wakes nobody.
            self._inbox, self._message = keys.inbox(text(uploader)), f"ping-{secrets.token_hex(8)}"
            pipe = self._redis.pipeline(transaction=False)
            pipe.lpush(self._inbox, self._message)
            pipe.expire(self._inbox, keys.INBOX_TTL)
            pipe.execute()
        return False


class RequestBody(io.RawIOBase):
    """Reads the body's stream; raises `UploadBroken` at the end of an upload that was cut short."""

    def __init__(
        self,
        reader: StreamReader,
        waiter: Waiter,
        interrupts: Interrupts,
        uploader: Uploader,
        sealed: SealedChunks | None = None,
    ) -> None:
        self._reader = reader
        self._sealed = sealed
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
        chunk = self._take()
        if self._sealed is None:
            return chunk
        if chunk and (opened := self._sealed.open(chunk)):
            return opened
        if self._take() or not self._sealed.whole:
            raise UploadBroken("the request body in Redis does not end where its seals do")
        return b""

    def _take(self) -> bytes:
        """Return the next chunk as it is in Redis, empty at the end. Raises `UploadBroken`."""
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
