"""Event streams (`text/event-stream`): where events end, and an `id:` put into each. Pure.

The format is defined in the HTML standard, section 9.2: lines end with CRLF, LF or CR, an empty line ends an
event, and a byte order mark may come first. All that is added is an `id` before the empty line that ends an
event, where a client has received all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from wsgi_timeout.store.messages import ResponseHead

EVENTS = "text/event-stream"
#: Media types of responses that may have no end: events, and lines of JSON.
STREAMS = frozenset(
    {
        EVENTS,
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json-lines",
        "application/json-seq",
        "application/stream+json",
    }
)
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"
#: How many bytes of a line's beginning tell its field, with a byte order mark and a colon.
_HEAD = 16
_FIELDS = {name: (name, name + b":") for name in (b"data", b"id", b"retry")}


def is_event_source(environ: Mapping[str, Any]) -> bool:
    """Whether a request comes from an EventSource, which comes back by itself when its response ends.

    It asks for nothing else, past all caches, or says where it was. Programs that read one response
    (httpx-sse sends `Cache-Control: no-store`) are none.
    """
    if environ["REQUEST_METHOD"] != "GET" or environ.get("HTTP_ACCEPT", "").strip().lower() != EVENTS:
        return False
    return "HTTP_LAST_EVENT_ID" in environ or "no-cache" in environ.get("HTTP_CACHE_CONTROL", "").lower()


def media_type(head: ResponseHead) -> str:
    """Return the media type of a response with an unencoded body; empty for any other response."""
    headers = {name.lower(): value for name, value in head.headers}
    # In a compressed or partial body no event can be located.
    if headers.get("content-encoding", "identity").strip().lower() != "identity" or head.status[:3] != "200":
        return ""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def has_event(rest: bytes) -> bool:
    """Return whether an event ends in the part of a stream that a client has not received."""
    marker = EventMarker(resumed=True)
    whole, more = marker.feed(rest, lambda _: b"")
    return marker.foreign or len(whole) + len(more) > len(rest)


class EventMarker:
    """Puts an `id` into each event of a stream that sets none; a stream that sets ids is left alone.

    An event counts if it has data: others are not dispatched by clients, comments neither.
    """

    def __init__(self, *, resumed: bool = False, retry_ms: int = 0) -> None:
        """Take `resumed` if the client has an id already, else `retry_ms` for its first event (0: none)."""
        #: Whether the client has an id of ours, and no later one of the app.
        self.marked = resumed
        #: Whether the stream stands between two events: all of the last one was seen.
        self.between = True
        #: The line end that the stream uses, for lines that are put in between two events.
        self.ending = b"\n"
        self._retry = b"" if resumed or not retry_ms else b"retry: %d" % retry_ms
        #: Whether the app sets ids of its own: nothing is put in from then on.
        self.foreign = False
        self._at_start = not resumed
        # The second half of a CRLF may come, or lie, behind the place where the client was.
        self._after_cr = resumed
        self._line = b""
        self._has_data = self._has_id = False

    def feed(self, chunk: bytes, name: Callable[[int], bytes]) -> tuple[bytes, bytes]:
        """Return the chunk with ids put in: what it holds up to its last event's end, and the rest.

        `name` makes the id of an event from the place in the chunk where it ends.
        """
        start = copied = self._swallow_line_feed(chunk)
        pieces = [chunk[:start]]
        done = start
        for end in _LINE_END.finditer(chunk, start):
            line, start = self._line + chunk[start : min(end.start(), start + _HEAD)], end.end()
            self._line = b""
            if line:
                self._field(line)
                self.ending = end[0]
                continue
            if added := self._event_ends(name, end.end()):
                pieces += (chunk[copied : end.start()], added)
                copied = end.start()
            pieces.append(chunk[copied : end.end()])
            copied, done = end.end(), len(pieces)
        self._line = (self._line + chunk[start : start + _HEAD])[:_HEAD]
        self._after_cr = chunk.endswith(b"\r") if chunk else self._after_cr
        if chunk[copied:]:
            self.between = False
            pieces.append(chunk[copied:])
        return b"".join(pieces[:done]), b"".join(pieces[done:])

    def _swallow_line_feed(self, chunk: bytes) -> int:
        if not (self._after_cr and chunk.startswith(b"\n")):
            return 0
        self.ending = b"\r\n"
        return 1

    def _field(self, line: bytes) -> None:
        if self._at_start:
            line, self._at_start = line.removeprefix(_BOM), False
        self._has_data = self._has_data or _is(line, b"data")
        self._has_id = self._has_id or _is(line, b"id")
        if _is(line, b"retry"):
            self._retry = b""

    def _event_ends(self, name: Callable[[int], bytes], place: int) -> bytes:
        """Return what is put in before the empty line of the event that ends at `place`."""
        has_data, self.foreign = self._has_data, self.foreign or self._has_id
        self._has_data = self._has_id = False
        self.between, self._at_start = True, False
        if self.foreign:
            self.marked = False
        if self.foreign or not has_data:
            return b""
        self.marked = True
        retry, self._retry = self._retry, b""
        return b"".join(line + self.ending for line in (retry, b"id: " + name(place)) if line)


def _is(line: bytes, field: bytes) -> bool:
    alone, with_colon = _FIELDS[field]
    return line == alone or line.startswith(with_colon)
