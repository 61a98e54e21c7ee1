"""Finds the end of a chunked body (RFC 9112 section 7.1) in bytes as they arrive; does no I/O.

The server's parser reads the body afterwards, and is the one that judges it. What it would wait for must be
waited for here too: lines end with CRLF, as gunicorn has it, and a size may have any number of digits.
"""

from __future__ import annotations

import re
import sys

_SIZE = re.compile(rb"([0-9a-fA-F]+)[ \t]*(;.*)?", re.DOTALL)
#: The end of a longer line is not looked for.
_LONGEST_LINE = 64 * 1024


class ChunkedEnd:
    """Is fed a body, and says when it has `come`: with its trailers, or when it is no chunked body at all."""

    __slots__ = ("_in_trailers", "_line", "_skip", "come")

    def __init__(self, data: bytes | bytearray = b"") -> None:
        """Begin with what is there of the body."""
        #: All of it was fed; more bytes belong to a next request.
        self.come = False
        #: The beginning of a line whose end has not come.
        self._line = b""
        #: Bytes of a chunk, and of the line break after it, that are still to come.
        self._skip = 0
        self._in_trailers = False
        self.feed(data)

    def feed(self, data: bytes | bytearray) -> None:
        """Add bytes that have arrived."""
        position = 0
        while position < len(data) and not self.come:
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
                continue
            end = data.find(b"\n", position) + 1 or len(data)
            self._line += data[position:end]
            position = end
            if self._line.endswith(b"\r\n"):
                self._read_line()
            elif len(self._line) > _LONGEST_LINE:
                self._skip = sys.maxsize

    def _read_line(self) -> None:
        line, self._line = self._line[:-2], b""
        if self._in_trailers:
            self.come = not line
        elif found := _SIZE.fullmatch(line):
            size = int(found[1], 16)
            self._skip = size + 2 if size else 0
            self._in_trailers = size == 0
        else:
            self.come = True
