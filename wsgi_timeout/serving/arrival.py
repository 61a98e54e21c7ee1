"""Collects a request's head, and the beginning of its body, before a thread is used for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from wsgi_timeout.http.parameters import MARK
from wsgi_timeout.serving.chunked_end import ChunkedEnd

#: Bytes of a body that are received without a thread: as much as is stored with a call, without a stream.
BODY_AHEAD = 64 * 1024
#: Larger heads go to gunicorn as they are: it refuses them with 431, or 414.
_LARGEST_HEAD = 64 * 1024
#: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2
_PROXY_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
# Of a head in lower case.
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*(?=\r\n)")
_CODED = b"\r\ntransfer-encoding:"
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked")
_CONTINUE = re.compile(rb"\r\nexpect:[ \t]*100-continue")
_MARK = MARK.encode()


class Arrival:
    """What has arrived of one request; does no I/O.

    It is `ready` when a thread can handle it without waiting for the client: the head and a small body are
    complete, or the first 64 KiB of a large body. Two bodies are not waited for: that of a request with our
    parameter, whose token is checked first, and one that the client sends only after `100 Continue`.
    """

    def __init__(
        self, conn: Any, *, seconds: float, rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Give the head `seconds` to arrive; the body must then come at `rate` bytes a second, see `feed`."""
        self.conn = conn
        self.data = bytearray()
        self.registered = False
        self.ready = False
        #: Bytes of the body that have not arrived; None: unknown, 0: it is complete.
        self.missing: int | None = 0
        #: Where a chunked body ends; None for any other.
        self.chunks: ChunkedEnd | None = None
        self._clock = clock
        self._rate = rate
        self.deadline = clock() + seconds
        self._head_end = 0
        self._looked = 0
        self._body: int | None = 0

    def feed(self, data: bytes, body_seconds: float) -> None:
        """Add bytes that have arrived; a body may be up to `body_seconds` later than at its least rate."""
        self.data += data
        if self._head_end:
            self.deadline = min(self._clock() + body_seconds, self.deadline + len(data) / self._rate)
            if self.chunks:
                self.chunks.feed(data)
        elif end := self._find_head():
            self._head_end = end
            self.deadline = self._clock() + body_seconds
            self._read_head()
        else:
            return
        self._look_at_body()

    def _find_head(self) -> int:
        """Return where the head ends; 0 if it is not complete."""
        start = max(0, self._looked - 3)
        if self.data.startswith(_PROXY_SIGNATURE):
            start = max(start, 16 + int.from_bytes(self.data[14:16], "big"))
        elif len(self.data) < len(_PROXY_SIGNATURE) and _PROXY_SIGNATURE.startswith(bytes(self.data)):
            return 0
        end = self.data.find(b"\r\n\r\n", start)
        self._looked = len(self.data)
        if end >= 0:
            return end + 4
        return len(self.data) if len(self.data) > _LARGEST_HEAD else 0

    def _read_head(self) -> None:
        head = bytes(self.data[: self._head_end]).lower()
        length = _LENGTH.search(head) if b"content-length" in head else None
        self._body = int(length[1]) if length else 0
        if _CODED in head:
            # gunicorn refuses other codings at once, or a length beside them (RFC 9112 section 6.3).
            self._body = None if _CHUNKED.search(head) and not length else 0
        self.chunks = ChunkedEnd(self.data[self._head_end :]) if self._body is None else None
        if self._body != 0 and (_CONTINUE.search(head) or _MARK in head.partition(b"\r\n")[0]):
            self.ready = True

    def _look_at_body(self) -> None:
        there = len(self.data) - self._head_end
        if self._body is None:
            self.missing = 0 if self.chunks and self.chunks.come else None
        else:
            self.missing = max(0, self._body - there)
        self.ready = self.ready or self.missing == 0 or there >= BODY_AHEAD
