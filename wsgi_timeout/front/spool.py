"""Reads large responses ahead of slow clients into temporary files, so that no worker waits for them.

A worker writes ahead of its reader into Redis, up to `max_result`. Of what is larger it waits for room, which
would come at the client's pace. If it waits while the client takes nothing for a moment, the response is read
into a file of this machine, as nginx reads from its upstreams, and the client gets it from there.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from wsgi_timeout.errors import ResponseBroken, ResultTrimmed
from wsgi_timeout.front.temporary_files import disk_has_room, open_file
from wsgi_timeout.log_once import LogOnce
from wsgi_timeout.store.redis_errors import UNAVAILABLE
from wsgi_timeout.store.streams import CHUNK, READ_AHEAD, StreamReader

log = logging.getLogger("wsgi_timeout")

#: Seconds between two looks at the clients.
_TICK_SECONDS = 0.25
#: A client that does not take what one read returned, 1 MiB at most, in so many seconds is slow.
_SLOW_SECONDS = 0.25
#: Seconds between two looks at a worker that did not wait for its slow client, at most.
_REST_SECONDS = 2.0
#: Reads of one response in a row: then the others have their turn.
_READS = 32


class Spooler:
    """The thread of one web process that fills the files."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of one file, at most; 0: there are none."""
        self._limit = limit
        self._open: set[Ahead] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._surprises = LogOnce("temporary files of responses")

    def open(self, reader: StreamReader) -> Ahead:
        """Return what reads a response for one client; to be closed."""
        if not self._limit or reader.end:
            return Ahead(reader)
        ahead = Ahead(reader, self._limit, self._forget)
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="wsgi-timeout-spool", daemon=True)
                self._thread.start()
            self._open.add(ahead)
            if len(self._open) == 1:
                self._changed.notify()
        return ahead

    def _forget(self, ahead: Ahead) -> None:
        with self._changed:
            self._open.discard(ahead)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._open:
                    self._changed.wait()
                opened = list(self._open)
            for ahead in opened:
                with self._surprises:
                    ahead.fill()
            time.sleep(_TICK_SECONDS)


class Ahead:
    """One response on its way to one client: what comes next is in its file, or in Redis."""

    def __init__(
        self, reader: StreamReader, limit: int = 0, forget: Callable[[Ahead], None] = lambda _ahead: None
    ) -> None:
        """`limit`: bytes of the file, at most; `forget` is called at the end."""
        self._reader = reader
        self._limit = limit
        self._forget = forget
        #: Held while the stream or the file is read.
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        #: Bytes that were written to the file, and read from it.
        self._written = self._read = 0
        #: What was read of the stream when the file took no more; comes after the file.
        self._rest: list[bytes] = []
        #: Since when the client takes what it was given; infinite while it waits for more.
        self._since = math.inf
        self._next_look = 0.0
        self._pause = _TICK_SECONDS
        self._error: ResponseBroken | None = None
        self._closed = False

    def sending(self) -> None:
        """Note that the server sends from now on; until `read`."""
        self._since = time.monotonic()

    def read(self) -> list[bytes]:
        """Return the next chunks; none if there are none yet, or at the `end`.

        Raises:
            ResponseBroken: the next chunks were deleted.
        """
        self._since = math.inf
        with self._lock:
            if self._read < self._written:
                return [self._from_file()]
            if self._rest:
                rest, self._rest = self._rest, []
                return rest
            if self._error:
                raise self._error
            return [] if self._reader.end or self._reader.missing else self._poll()

    @property
    def end(self) -> str:
        """`complete`, `broken` or `missing` once everything was read, as of the stream; empty before."""
        with self._lock:
            if self._read < self._written or self._rest or self._error:
                return ""
            return self._reader.end or ("missing" if self._reader.missing else "")

    def fill(self) -> None:
        """Read ahead if the client is slow and the worker waits for it."""
        now = time.monotonic()
        if now - self._since < _SLOW_SECONDS or now < self._next_look:
            return
        if not self._worker_waits():
            self._pause = min(2 * self._pause, _REST_SECONDS)
            self._next_look = now + self._pause
            return
        self._pause = _TICK_SECONDS
        for _ in range(_READS):
            if not self._fill_once():
                return

    def close(self) -> None:
        """Read nothing more."""
        self._forget(self)
        with self._lock:
            self._closed = True
            if self._file:
                self._file.close()

    def _worker_waits(self) -> bool:
        if self._closed or self._reader.end or self._limit == 0:
            return False
        with suppress(*UNAVAILABLE):
            return self._reader.is_waited_for()
        return False

    def _fill_once(self) -> bool:
        """Move the next chunks into the file; return whether there may be more, and room for them."""
        with self._lock:
            if (
                self._closed
                or self._error
                or self._reader.end
                or self._reader.missing
                or not self._has_room()
            ):
                return False
            try:
                chunks = self._poll()
            except UNAVAILABLE:
                return False
            except ResponseBroken as error:
                self._error = error
                return False
            self._keep(b"".join(chunks))
            return bool(chunks)  # none too if the stream is missing by now

    def _poll(self) -> list[bytes]:
        try:
            return self._reader.poll()
        except ResultTrimmed as error:
            raise ResponseBroken(str(error)) from error

    def _has_room(self) -> bool:
        if self._written + READ_AHEAD * CHUNK > self._limit:
            return False
        try:
            if self._file is None:
                self._file = open_file()
            return disk_has_room(self._file)
        except OSError as error:
            self._give_up(error)
            return False

    def _keep(self, data: bytes) -> None:
        """Append to the file; what it does not take stays in memory, and is the last that is read ahead."""
        assert self._file is not None
        rest = memoryview(data)
        try:
            while rest:
                count = os.pwrite(self._file.fileno(), rest, self._written)
                self._written += count
                rest = rest[count:]
        except OSError as error:
            self._rest = [bytes(rest)]
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._limit = 0
        log.warning(
            "a slow client's response goes into no temporary file, so its worker waits for it: %s. "
            "Set TMPDIR to a folder with room",
            error,
        )

    def _from_file(self) -> bytes:
        assert self._file is not None
        data = os.pread(self._file.fileno(), min(CHUNK, self._written - self._read), self._read)
        self._read += len(data)
        if not data:
            raise ResponseBroken("the temporary file of a response was cut")
        if self._read == self._written:
            os.ftruncate(self._file.fileno(), 0)
            self._read = self._written = 0
        return data
