"""Takes in the rest of a large upload before its call begins, so that no worker waits for a slow client.

What lies in Redis before a call begins is bounded, and beyond that its handler reads at the client's pace.
With `max_request_file` the rest goes into a file of this machine first, as nginx buffers requests, and the
handler reads as fast as it can.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import IO

from wsgi_timeout.front.temporary_files import disk_has_room, open_file
from wsgi_timeout.store.packing import Buffer

log = logging.getLogger("wsgi_timeout")


class UploadFile:
    """The chunks of one body that came before its call began; none if `limit` is 0."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of the file, at most."""
        self._limit = limit
        self._file: IO[bytes] | None = None
        #: The length of each chunk in the file: they are sealed one by one.
        self._sizes: list[int] = []
        #: What the file did not take.
        self._rest: list[bytes] = []

    def fill(self, chunks: Iterator[Buffer]) -> None:
        """Take in chunks until there are no more, or no room for them; raises what `chunks` raises."""
        written = 0
        while written < self._limit and (chunk := next(chunks, b"")):
            if not self._keep(chunk, written):
                self._rest = [bytes(chunk)]
                return
            written += len(chunk)

    def chunks(self) -> Iterator[bytes]:
        """Yield what was taken in."""
        start = 0
        for size in self._sizes:
            assert self._file is not None
            yield os.pread(self._file.fileno(), size, start)
            start += size
        yield from self._rest

    def close(self) -> None:
        if self._file:
            self._file.close()

    def _keep(self, chunk: Buffer, at: int) -> bool:
        if at + len(chunk) > self._limit:
            return False
        try:
            if self._file is None:
                self._file = open_file()
            kept = disk_has_room(self._file) and os.pwrite(self._file.fileno(), chunk, at) == len(chunk)
        except OSError as error:
            log.warning(
                "a large request body goes into no temporary file, so its worker waits for its client: %s. "
                "Set TMPDIR to a folder with room",
                error,
            )
            return False
        if kept:
            self._sizes.append(len(chunk))
        return kept
