"""Streams that a client can resume: event ids, keep-alive comments, ends between two events.

Each event gets an `id` that names the call, its token and the byte of the app's body where the event ends.
A client that reconnects with that id (`Last-Event-ID`) continues from there, see `resumed_stream`. Lines of
JSON are sent unchanged: their clients count bytes.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from wsgi_timeout.errors import ResponseBroken
from wsgi_timeout.front import policy, redirects, replay
from wsgi_timeout.front.delivery import Delivery
from wsgi_timeout.front.exchange import Exchange
from wsgi_timeout.front.places import Seat
from wsgi_timeout.front.spool import Ahead
from wsgi_timeout.front.wait import Ready
from wsgi_timeout.http.events import EVENTS, STREAMS, EventMarker, media_type
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.messages import ResponseHead
from wsgi_timeout.store.record import Outcome, Snapshot
from wsgi_timeout.store.redis_errors import UNAVAILABLE
from wsgi_timeout.watching.listener import RECHECK_SECONDS

log = logging.getLogger("wsgi_timeout")

#: Milliseconds after which a client reconnects: the `retry` field of an event stream.
_RETRY_MS = 500
#: Stands in place of an offset in the id of the last event, which tells a client that no more will come.
END = "end"
#: A stream is whole if its call ended with one of these outcomes, or has not ended.
_WHOLE = frozenset({None, Outcome.DONE})


@dataclass(frozen=True, slots=True)
class Stay:
    """How long one connection to a stream lasts."""

    #: Whether its client reconnects by itself: only then may the stream end between two events.
    reconnects: bool
    #: When it ends in that case, on the monotonic clock.
    deadline: float
    keepalive_seconds: float

    @classmethod
    def of(cls, exchange: Exchange, deadline: float) -> Stay:
        """Derive it from a request's `Accept`: an EventSource and our own clients name their type there."""
        environ = exchange.environ
        event_source = exchange.method == "GET" and EVENTS in environ.get("HTTP_ACCEPT", "").lower()
        reconnects = event_source or redirects.asks_for_202(environ)
        return cls(reconnects, deadline, exchange.settings.keepalive_seconds)


def kind(head: ResponseHead | None, settings: Settings) -> str:
    """Return the media type of a resumable response; empty for any other response."""
    found = media_type(head) if head and settings.event_streams == "resumable" else ""
    return found if found in STREAMS else ""


def answer(
    exchange: Exchange, ready: Ready, delivery: Delivery, seat: Seat, deadline: float
) -> Iterable[bytes]:
    """Answer with a response from its beginning; what is no resumable stream is left to `replay.answer`."""
    snapshot = ready.snapshot
    found = kind(snapshot.head, exchange.settings)
    if not found or delivery.method == "HEAD" or snapshot.outcome not in {*_WHOLE, Outcome.BROKEN}:
        return replay.answer(ready, delivery, seat, exchange.start_response)
    return play(exchange, ready, delivery, seat, deadline)


def play(
    exchange: Exchange,
    ready: Ready,
    delivery: Delivery,
    seat: Seat,
    deadline: float,
    offset: int | None = None,
    skip: int = 0,
) -> Iterable[bytes]:
    """Answer with a resumable stream.

    Args:
        deadline: when the connection may end between two events, if its client reconnects by itself; on the
            monotonic clock.
        offset: the byte of the app's body to continue at; None: the client sees it for the first time.
        skip: how many bytes at the beginning of `ready.first` lie before `offset`.
    """
    # Its events tell the client the call's id and token, so it may reconnect even after the last byte.
    pending = replace(delivery.pending, hop=max(1, delivery.pending.hop))
    settings = exchange.settings
    grace = max(delivery.grace_seconds, settings.resume_window)
    delivery = replace(delivery, pending=pending, grace_seconds=grace)
    head = ready.snapshot.head
    assert head is not None
    exchange.start_response(head.status, _headers(head, pending))
    first = ready.first if ready.reader else [ready.snapshot.body or b""]
    first = [b"".join(first)[skip:]]
    if kind(head, settings) == EVENTS:
        stay = Stay.of(exchange, deadline)
        chunks: replay.Chunks = _Events(ready, delivery, seat, stay, offset).run(first)
    elif ready.reader:
        chunks = replay.stream(ready.reader, first, seat.waiter)
    else:
        chunks = replay.whole(ready.snapshot, first[0])
    return replay.Replay(chunks, ready.reader, delivery, seat.pass_on())


def _headers(head: ResponseHead, pending: Pending) -> list[tuple[str, str]]:
    kept = [(name, value) for name, value in head.headers if name.lower() != "content-length"]
    link = f'<{pending.next_url}>; rel="self", <{pending.status_url}>; rel="monitor"'
    if not any(name.lower() == "x-accel-buffering" for name, _ in kept):
        kept.append(("X-Accel-Buffering", "no"))  # otherwise nginx buffers events
    # The ids contain the token: no shared cache may store them.
    return [*policy.on_result_url(kept, pending.clean_url), ("Link", link)]


class _Events:
    """The events of one connection."""

    def __init__(self, ready: Ready, delivery: Delivery, seat: Seat, stay: Stay, offset: int | None) -> None:
        self._snapshot: Snapshot = ready.snapshot
        self._reader = ready.reader
        self._ahead = Ahead(ready.reader) if ready.reader else None
        self._runtime = delivery.runtime
        self._waiter = seat.waiter
        self._stay = stay
        self._offset = offset or 0
        self._prefix = f"{delivery.pending.call_id}.{delivery.pending.token}."
        self._marker = EventMarker(resumed=offset is not None, retry_ms=_RETRY_MS)
        #: The beginning of an event whose end has not come, if the stream is known to break off; else None.
        self._held: list[bytes] | None = None if ready.snapshot.outcome in _WHOLE else []

    def run(self, chunks: list[bytes]) -> replay.Chunks:
        """Yield the stream's bytes; return whether the stream was sent to its end."""
        self._waiter.for_chunks()
        while True:
            for chunk in chunks:
                whole, rest = self._mark(chunk)
                if whole and self._is_time() and self._marker.marked:
                    yield whole
                    return False
                if whole or rest:
                    yield whole + rest
            end = self._end()
            if end == "complete":
                return True
            if end:
                yield self._lost()
                return True
            if self._is_time() and self._marker.between and self._marker.marked:
                return False
            chunks = yield from self._next()

    def _mark(self, chunk: bytes) -> tuple[bytes, bytes]:
        offset, self._offset = self._offset, self._offset + len(chunk)
        whole, rest = self._marker.feed(chunk, lambda place: f"{self._prefix}{offset + place}".encode())
        if self._held is None:
            return whole, rest
        if whole:
            whole = b"".join((*self._held, whole))
            self._held.clear()
        self._held.append(rest)
        return whole, b""

    def _end(self) -> str:
        if self._reader is None:
            return "complete" if self._snapshot.outcome in _WHOLE else "broken"
        return "broken" if self._reader.missing else self._reader.end

    def _is_time(self) -> bool:
        stay = self._stay
        return stay.reconnects and (time.monotonic() >= stay.deadline or self._runtime.listener.draining)

    def _next(self) -> Generator[bytes, None, list[bytes]]:
        """Return the next chunks; empty at the stream's end, or when this connection is to end."""
        waiter, stay = self._waiter, self._stay
        assert self._ahead is not None
        next_comment = time.monotonic() + stay.keepalive_seconds
        while (chunks := replay.poll(self._ahead, waiter)) is None:
            if self._is_time():
                return []
            now = time.monotonic()
            if now >= next_comment:
                next_comment = now + stay.keepalive_seconds
                if self._marker.between and not self._marker.foreign:
                    # One line and no blank one after it: some clients take that for an empty event.
                    yield b":" + self._marker.ending
            seconds = min(RECHECK_SECONDS, max(0.01, next_comment - now))
            if stay.reconnects:
                seconds = min(seconds, max(0.01, stay.deadline - now))
            waiter.wait(seconds)
        return chunks

    def _lost(self) -> bytes:
        """Return the event that says that no more will come; raise if the app sends ids of its own."""
        marker = self._marker
        # A client that has part of an event reconnects for the whole of it, and is told then.
        if marker.foreign or (not marker.between and self._held is None):
            raise ResponseBroken("the response broke off in the worker")
        outcome = self._snapshot.outcome
        with suppress(*UNAVAILABLE):
            outcome = self._runtime.calls.look(self._waiter.call_id).outcome or outcome
        data = json.dumps({"outcome": outcome or Outcome.LOST})
        lines = ("event: wsgi-timeout-lost", f"data: {data}", f"id: {self._prefix}{END}", "")
        return b"".join(line.encode() + marker.ending for line in lines)
