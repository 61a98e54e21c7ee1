"""Resuming a stream: by the id of the last event at the app's own URL, or by an offset at the result URL."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from wsgi_timeout.errors import CallUnknown, ResultTrimmed
from wsgi_timeout.front import event_stream, redirects, replay
from wsgi_timeout.front.delivery import Delivery
from wsgi_timeout.front.event_stream import END
from wsgi_timeout.front.exchange import Exchange
from wsgi_timeout.front.places import Seat
from wsgi_timeout.front.put_off import seat_or_put_off
from wsgi_timeout.front.result_urls import drain, find
from wsgi_timeout.front.wait import Ready
from wsgi_timeout.http import answers, parameters, urls
from wsgi_timeout.http.asked import Asked
from wsgi_timeout.http.events import EVENTS, has_event
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.store.record import Outcome, Snapshot, Tombstone
from wsgi_timeout.store.redis_errors import UNAVAILABLE
from wsgi_timeout.store.streams import seek

_NAMED = re.compile(r"(fc-[A-Za-z0-9_-]{8,64})\.([A-Za-z0-9_-]{16,128})\.(\d{1,15}|end)")


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """The call and the position in its response from which a client wants to continue."""

    call_id: str
    token: str
    #: Bytes of the app's body that the client has; None: all of them.
    offset: int | None


def _position(environ: dict[str, Any], reference: urls.Reference | None) -> StreamPosition | None:
    """Return the position that a request names; None if it names none of ours."""
    if named := _NAMED.fullmatch(environ.get("HTTP_LAST_EVENT_ID", "").strip()):
        call_id, token, offset = named.groups()
        return StreamPosition(call_id, token, None if offset == END else int(offset))
    if reference and reference.kind == "call" and reference.offset is not None:
        return StreamPosition(reference.call_id, reference.token, reference.offset)
    return None


def with_our_offset(environ: dict[str, Any]) -> dict[str, Any]:
    """Return a request's environ, with an `offset` after our parameters as one of ours."""
    query = environ.get("QUERY_STRING", "")
    return {**environ, "QUERY_STRING": urls.with_our_offset(query)} if parameters.MARK in query else environ


def answer(exchange: Exchange) -> Iterable[bytes] | None:
    """Answer with the rest of a stream; None if the request names no position, or an expired one."""
    reference = urls.reference(exchange.environ.get("QUERY_STRING", ""))
    at = _position(exchange.environ, reference)
    return _resume(exchange, at, reference.hop if reference else 0) if at else None


def _resume(exchange: Exchange, at: StreamPosition, hop: int) -> Iterable[bytes] | None:
    environ = exchange.environ
    pending = Pending(at.call_id, at.token, urls.canonical_path(environ), exchange.own_url(), max(1, hop))
    deadline = time.monotonic() + exchange.settings.wait_seconds
    seated = seat_or_put_off(exchange, pending)
    if seated is None:
        return redirects.to_result_url(exchange, pending)
    with seated as seat:
        try:
            found = find(exchange.runtime, pending, seat.waiter, deadline)
            if found is None:
                seat.keep_place()
                return redirects.to_result_url(exchange, pending)
            if Asked.by(environ).query != Asked.unpack(found.origin.asked).query:
                return None
            pending = replace(pending, origin=found.origin)
            return _ResumedStream(exchange, at, pending, seat, deadline).answer(found)
        except CallUnknown:
            return None
        except UNAVAILABLE:
            return redirects.to_result_url(exchange, pending)


@dataclass(frozen=True, slots=True)
class _ResumedStream:
    """A client that resumes one call's stream."""

    exchange: Exchange
    at: StreamPosition
    pending: Pending
    seat: Seat
    deadline: float

    def answer(self, found: Snapshot | Tombstone) -> Iterable[bytes] | None:
        """Answer with what follows the position; None: the call has no such stream, or not that byte."""
        offset = self.at.offset
        if offset is None:
            return self._no_more()
        if isinstance(found, Tombstone) or not event_stream.kind(found.head, self.exchange.settings):
            return None
        if found.body is not None:
            ready, skip = Ready(found, None, []), offset
            if offset > len(found.body):
                return None
        else:
            scripts = self.exchange.runtime.calls.scripts
            place_in_chunk = seek(scripts, self.pending.call_id, found.attempt, offset)
            if place_in_chunk is None:
                return None
            number, skip = place_in_chunk
            ready = self._read(found, number)
        if self._is_over(ready, skip):
            return self._no_more()
        return self._go_on(ready, skip)

    def _read(self, found: Snapshot, number: int) -> Ready:
        runtime = self.exchange.runtime
        reader = runtime.calls.reader(self.pending.call_id, runtime.listener.inbox, found, number)
        try:
            first = reader.poll()
        except ResultTrimmed as error:
            raise CallUnknown(str(error)) from error
        if reader.missing:
            raise CallUnknown("this stream is not kept any more")
        return Ready(found, reader, first)

    def _is_over(self, ready: Ready, skip: int) -> bool:
        """Return whether no event follows the position: the handler has ended, and all was sent."""
        reader, snapshot = ready.reader, ready.snapshot
        whole = reader.end == "complete" if reader else snapshot.body is not None
        if not whole or snapshot.outcome not in {None, Outcome.DONE}:
            return False
        rest = (b"".join(ready.first) if reader else snapshot.body or b"")[skip:]
        if event_stream.kind(snapshot.head, self.exchange.settings) != EVENTS:
            return not rest
        return not has_event(rest)

    def _no_more(self) -> Iterable[bytes]:
        drain(self.exchange.environ, self.exchange.settings)
        return answers.no_more(self.exchange.start_response)

    def _go_on(self, ready: Ready, skip: int) -> Iterable[bytes]:
        exchange = self.exchange
        drain(exchange.environ, exchange.settings)
        delivery = Delivery.of(exchange, self.pending, ready.snapshot)
        if exchange.method == "HEAD":
            return replay.answer(ready, delivery, self.seat, exchange.start_response)
        return event_stream.play(exchange, ready, delivery, self.seat, self.deadline, self.at.offset, skip)
