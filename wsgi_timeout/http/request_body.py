"""Reads a request body from the server: a small one whole, a large one in chunks.

An upload that was cut short must never look complete to the handler. When a client disconnects, gunicorn
returns the end of the body (RFC 9112 section 8 calls it incomplete), so the bytes are counted here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import cycle
from typing import Any

from wsgi_timeout.errors import BodyTooLarge, UploadBroken, UploadStalled
from wsgi_timeout.http.direct_input import DirectInput
from wsgi_timeout.store.packing import Buffer
from wsgi_timeout.store.streams import CHUNK

_READ = 64 * 1024


class Upload:
    """Reads one request's `wsgi.input` once, and counts the bytes."""

    def __init__(self, environ: Mapping[str, Any], max_bytes: int, *, hashed: bool = False) -> None:
        """Raise `BodyTooLarge` for a `Content-Length` over `max_bytes`; `hashed`: compute a digest."""
        self._input = environ["wsgi.input"]
        self._direct = self._input if isinstance(self._input, DirectInput) else None
        #: Called before a read that may wait for the client.
        self.before_wait: Callable[[], None] = lambda: None
        length = environ.get("CONTENT_LENGTH", "")
        self._length = int(length) if length.isdigit() else None
        # Without a length there is a body only if the server marks its end (chunked encoding).
        chunked = "HTTP_TRANSFER_ENCODING" in environ or _may_be_chunked(environ)
        #: The request has no body.
        self.empty = self._length == 0 or (self._length is None and not chunked)
        self._max = max_bytes
        self._count = 0
        self._rest = b""
        self._hash = sha256() if hashed else None
        #: All of it was read.
        self._whole = self.empty
        if self._length is not None and self._length > max_bytes:
            raise BodyTooLarge(
                f"the request body has {self._length} bytes, max_request_body allows {max_bytes}"
            )

    @property
    def length(self) -> int | None:
        """The `Content-Length` in bytes; None: there is none."""
        return self._length

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the whole body; empty if a part of it was not read."""
        return self._hash.digest() if self._hash and self._whole else b""

    def whole(self, limit: int) -> bytes | None:
        """Return the body if it has at most `limit` bytes; else None, and `chunks` yields it.

        Raises `UploadBroken`.
        """
        if self.empty:
            return b""
        if self._length is not None and self._length > limit:
            return None
        data = b""
        while len(data) <= limit:
            piece = self._read(limit + 1 - len(data))
            if not piece:
                return data
            data += piece
        self._rest = data
        return None

    def chunks(self) -> Iterator[Buffer]:
        """Yield the body from its beginning, in pieces of `CHUNK` bytes and a last smaller one.

        Each piece may change once the next but one is asked for. Raises `UploadBroken`, `BodyTooLarge`.
        """
        if self._direct and not self._rest:
            yield from self._direct_chunks(self._direct)
        else:
            yield from self._copied_chunks()

    def _direct_chunks(self, source: DirectInput) -> Iterator[memoryview]:
        # Two buffers, so that one can be sent while the other one is filled.
        for buffer in cycle([memoryview(bytearray(CHUNK)) for _ in range(2)]):
            filled = 0
            while filled < CHUNK and (count := self._read_into(source, buffer[filled:])):
                filled += count
            if filled:
                yield buffer[:filled]
            if filled < CHUNK:
                return

    def _copied_chunks(self) -> Iterator[bytes]:
        data, self._rest = self._rest, b""
        while True:
            while len(data) >= CHUNK:
                yield data[:CHUNK]
                data = data[CHUNK:]
            # As much as makes a chunk: a server copies what it has received ahead at each smaller read.
            piece = self._read(CHUNK - len(data))
            if not piece:
                break
            data = data + piece if data else piece
        if data:
            yield data

    def discard(self) -> None:
        """Read and drop the body, so that the connection stays usable."""
        while not self.empty and self._read(_READ):
            pass

    def _read(self, size: int) -> bytes:
        size = self._allowed(size)
        if size == 0:
            return b""
        self.before_wait()
        with self._understood():
            piece: bytes = self._input.read(size)
        self._came(piece)
        return piece

    def _read_into(self, source: DirectInput, buffer: memoryview) -> int:
        buffer = buffer[: self._allowed(len(buffer))]
        if not buffer:
            return 0
        with self._understood():
            count = source.receive_into_now(buffer)
        if count is None:
            self.before_wait()
            with self._understood():
                count = source.receive_into(buffer)
        self._came(buffer[:count])
        return count

    def _allowed(self, size: int) -> int:
        """Return how many of `size` bytes may be read: none after the end."""
        if self._length is None:
            return size
        self._whole = self._count == self._length
        return min(size, self._length - self._count)

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Turn the errors of a server's `read` into ours."""
        try:
            yield
        except TimeoutError as error:
            raise UploadStalled(f"the client paused for too long after {self._count} bytes") from error
        except Exception as error:  # every server raises errors of its own for a broken body
            raise UploadBroken(f"the request body broke off after {self._count} bytes") from error

    def _came(self, piece: bytes | memoryview) -> None:
        """Count what was read; nothing is the end, which must be where it was announced."""
        self._count += len(piece)
        if self._hash:
            self._hash.update(piece)
        self._whole = not piece
        if not piece and self._length is not None:
            raise UploadBroken(f"the request body ended after {self._count} of {self._length} bytes")
        if self._count > self._max:
            raise BodyTooLarge(f"the request body is larger than max_request_body, {self._max} bytes")


def _may_be_chunked(environ: Mapping[str, Any]) -> bool:
    """Return whether there may be a body without `Transfer-Encoding`, which some servers drop."""
    if not environ.get("wsgi.input_terminated", False):
        return False
    # gunicorn passes it on; in HTTP/2 there is no such header.
    return "gunicorn.socket" not in environ or not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1.")


@contextmanager
def impatient(environ: Mapping[str, Any], seconds: float) -> Iterator[None]:
    """Let reads fail after so many silent seconds, if the server puts its socket into the environ."""
    sock = environ.get("gunicorn.socket")
    if sock is None:
        yield
        return
    before = sock.gettimeout()
    sock.settimeout(seconds)
    try:
        yield
    finally:
        with suppress(OSError):  # the socket may be closed by now
            sock.settimeout(before)
