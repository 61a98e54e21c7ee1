"""A socket for gunicorn's parser with a least rate, so that no slow client holds a thread."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from wsgi_timeout.serving.chunked_end import ChunkedEnd


class PacedSocket:
    """Gives out what was received ahead, then reads on while the client keeps a least rate.

    The client has an allowance of seconds in which a read may block. Blocked time is taken from it, each
    byte that comes gives some back: at the least rate it lasts for ever, below it a read ends with
    `TimeoutError`. What the reader does in between costs the client nothing.
    """

    def __init__(self, sock: Any, *, least_rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Read from `sock`, whose client must send `least_rate` bytes a second."""
        self._sock = sock
        self._least_rate = least_rate
        self._clock = clock
        #: What was received and not given out yet.
        self.ahead = bytearray()
        self._allowance = self._most = 0.0
        #: Bytes of the body that are still to come; None: nobody knows.
        self._missing: int | None = None
        self._chunks: ChunkedEnd | None = None
        self._on_whole: Callable[[], None] | None = None
        #: What the reads since `expect` have received, and for how many seconds they have blocked.
        self._received, self._waited = 0, 0.0
        #: Since when a read blocks; None: none does.
        self._waits_since: float | None = None
        #: Whether `break_off` was called.
        self.broken_off = False

    def allow(self, seconds: float) -> None:
        """Begin with a full allowance, for a body that is not chunked unless `follow` is called."""
        self._allowance = self._most = seconds
        self._chunks = None

    @property
    def waited_seconds(self) -> float:
        """For how many seconds reads have waited for the client since `expect`."""
        since = self._waits_since
        return self._waited + (self._clock() - since if since is not None else 0.0)

    @property
    def rate(self) -> float:
        """How many bytes a second came while they waited."""
        return self._received / max(self.waited_seconds, 1e-6)

    def break_off(self) -> None:
        """End this upload from another thread: its reads raise `TimeoutError`, also one that waits now."""
        self.broken_off = True
        with suppress(OSError):
            # Past an SSLSocket's own `shutdown`, after which it could not send an answer.
            socket.socket.shutdown(self._sock, socket.SHUT_RD)

    def follow(self, chunks: ChunkedEnd) -> None:
        """Tell `chunks`, which knows all that was received so far, what comes."""
        self._chunks = chunks

    def expect(self, missing: int | None, on_whole: Callable[[], None]) -> None:
        """Have `on_whole` called when so many more bytes were read; None: when the chunks end."""
        self._missing, self._on_whole = missing, on_whole
        self._received, self._waited = 0, 0.0

    def put_ahead(self, data: bytes | bytearray) -> None:
        """Have `recv` return this before it reads from the socket."""
        self.ahead += data

    def fill(self, size: int) -> None:
        """Receive until `size` bytes or the last chunk are there, or the client stops, or is too slow."""
        with suppress(OSError):
            while len(self.ahead) < size and not (self._chunks and self._chunks.come):
                data = self._receive(size - len(self.ahead), 0)
                if not data:
                    return
                self.ahead += data

    def take_ahead(self) -> bytes:
        """Return what was received ahead and not read."""
        data, self.ahead = bytes(self.ahead), bytearray()
        return data

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return up to `size` bytes; raises `TimeoutError` for a client that is too slow."""
        if self.ahead:
            data = bytes(self.ahead[:size])
            del self.ahead[:size]
            return data
        return self._receive(size, flags)

    def recv_into(self, buffer: memoryview) -> int:
        """Do as `recv`, into a buffer; return how many bytes it was."""
        if self.ahead:
            return self._give_ahead(buffer)
        with self._within_allowance():
            count: int = self._sock.recv_into(buffer)
        self._came(buffer[:count])
        return count

    def recv_into_now(self, buffer: memoryview) -> int | None:
        """Do as `recv_into` without blocking; None: nothing has come."""
        if self.ahead:
            return self._give_ahead(buffer)
        before = self._sock.gettimeout()
        self._sock.settimeout(0)
        try:
            count: int = self._sock.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        finally:
            with suppress(OSError):
                self._sock.settimeout(before)
        if self.broken_off:
            raise self._too_slow()
        self._came(buffer[:count])
        return count

    def _give_ahead(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self.ahead))
        buffer[:count] = self.ahead[:count]
        del self.ahead[:count]
        return count

    def _receive(self, size: int, flags: int) -> bytes:
        with self._within_allowance():
            data: bytes = self._sock.recv(size, flags) if flags else self._sock.recv(size)
        self._came(data)
        return data

    @contextmanager
    def _within_allowance(self) -> Iterator[None]:
        """Limit a read to the client's allowance, and take from that the time for which it blocks."""
        before = self._sock.gettimeout()
        if self._allowance <= 0 or self.broken_off:
            raise self._too_slow()
        self._sock.settimeout(self._allowance if before is None else min(before, self._allowance))
        began = self._waits_since = self._clock()
        try:
            yield
        except OSError as error:
            if self.broken_off:
                raise self._too_slow() from error
            raise
        finally:
            self._waits_since = None
            seconds = self._clock() - began
            self._waited += seconds
            self._allowance -= seconds
            with suppress(OSError):  # it may be closed by now
                self._sock.settimeout(before)
        if self.broken_off:
            raise self._too_slow()

    def _too_slow(self) -> TimeoutError:
        if self.broken_off:
            return TimeoutError("the client sends so slowly that others, which wait, go first")
        return TimeoutError(f"the client sends less than {self._least_rate:g} bytes a second")

    def _came(self, data: bytes | memoryview) -> None:
        self._received += len(data)
        self._allowance = min(self._most, self._allowance + len(data) / self._least_rate)
        if self._chunks:
            self._chunks.feed(bytes(data))
        self._count(data)

    def _count(self, data: bytes | memoryview) -> None:
        if self._on_whole is None:
            return
        if self._missing is not None:
            self._missing -= len(data)
            whole = self._missing <= 0
        else:
            whole = self._chunks is not None and self._chunks.come
        if whole or not data:
            self._on_whole()
            self._on_whole = None

    def gettimeout(self) -> float | None:
        timeout: float | None = self._sock.gettimeout()
        return timeout

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)
