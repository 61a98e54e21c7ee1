"""Sends a recorded response to the WSGI server; once sent in full, it counts as delivered."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from wsgi_timeout.errors import ResponseBroken
from wsgi_timeout.front import policy
from wsgi_timeout.front.call_line import Sent
from wsgi_timeout.front.delivery import Delivery
from wsgi_timeout.front.places import Seat
from wsgi_timeout.front.spool import Ahead, Spooler
from wsgi_timeout.front.wait import Ready
from wsgi_timeout.http.asked import SAFE, Asked
from wsgi_timeout.store.record import Outcome, Snapshot, failure_of
from wsgi_timeout.store.redis_errors import ANY, UNAVAILABLE
from wsgi_timeout.store.streams import StreamReader
from wsgi_timeout.watching.listener import RECHECK_SECONDS
from wsgi_timeout.watching.waiter import Waiter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

log = logging.getLogger("wsgi_timeout")

#: Yields a body's chunks; returns False if it ended before the body did.
Chunks = Generator[bytes, None, bool | None]


def answer(ready: Ready, delivery: Delivery, seat: Seat, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the response, or raise the error with which the call ended.

    The seat is given up when the response is closed. Since the chunks in `ready.first` were read, no other
    attempt can replace this one, and its status and headers can be sent.
    """
    snapshot = ready.snapshot
    if snapshot.outcome not in {None, Outcome.DONE, Outcome.BROKEN}:
        delivery.finish(Sent.ERROR)
        raise failure_of(snapshot.outcome or Outcome.UNREAD)(snapshot.detail)
    assert snapshot.head is not None
    headers, pending = snapshot.head.headers, delivery.pending
    if pending.hop:
        headers = policy.on_result_url(headers, pending.clean_url, storable=not _is_fetched(delivery))
    start_response(snapshot.head.status, headers)
    if delivery.method == "HEAD":
        chunks: Chunks = _nothing()
    elif ready.reader is None:
        chunks = whole(snapshot, snapshot.body or b"")
    else:
        chunks = stream(ready.reader, ready.first, seat.waiter, delivery.runtime.spooler)
    return Replay(chunks, ready.reader, delivery, seat.pass_on())


def _is_fetched(delivery: Delivery) -> bool:
    """Return whether a GET gets the answer to a POST, or to another method that is not safe."""
    asked = delivery.pending.origin.asked
    return delivery.method in SAFE and bool(asked) and Asked.unpack(asked).method not in SAFE


class BrokenOff(ResponseBroken):
    """The app's own response broke off: there is no more of it, for no client."""


class Replay:
    """The iterable of one response. PEP 3333: the server calls `close()` however the response ended."""

    def __init__(self, chunks: Chunks, reader: StreamReader | None, delivery: Delivery, seat: Seat) -> None:
        self._chunks = chunks
        self._reader = reader
        self._delivery = delivery
        self._seat = seat
        self._sent: Sent | None = Sent.PART
        self._broke = False
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            # False: it ended between two events, and its client comes again for the next one.
            self._sent = None if (yield from self._chunks) is False else Sent.WHOLE
        except BrokenOff:
            self._broke = True
            raise

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with self._seat:
            with suppress(ValueError):  # it runs, in a thread that goes on after its request
                self._chunks.close()
            if self._sent:
                self._finish(self._sent)
            # Afterwards: it wakes the writer, which then ends if nobody can ask for the response again.
            if self._reader:
                _leave(self._reader)

    def _finish(self, sent: Sent) -> None:
        ended_ms, broke = 0, self._broke
        if self._reader:
            ended_ms, broke = self._reader.ended_ms, broke or self._reader.end == "broken"
        self._delivery.finish(sent, broke=broke, ended_ms=ended_ms)

    def __del__(self) -> None:
        # Some middleware replaces our answer with its own and never closes ours. A garbage collection may
        # happen anywhere, so this may take no lock and ask Redis nothing.
        if not self._closed:
            self._seat.close_later(self.close)


def pass_over(ready: Ready, delivery: Delivery) -> None:
    """Drop a response that does not fit this request's conditions; the client it was for has left."""
    if ready.reader:
        _leave(ready.reader)
    delivery.finish(Sent.NOTHING)


def _leave(reader: StreamReader) -> None:
    try:
        reader.leave()
    except ANY:
        log.debug("could not leave a stream; its TTL ends it")


def _nothing() -> Generator[bytes, None, None]:
    yield from ()


def whole(snapshot: Snapshot, body: bytes) -> Generator[bytes, None, None]:
    """Yield a small body, or the part of it that exists if it broke off."""
    yield body
    if snapshot.outcome == Outcome.BROKEN:
        raise BrokenOff(snapshot.detail)


def stream(
    reader: StreamReader, chunks: list[bytes], waiter: Waiter, spooler: Spooler | None = None
) -> Generator[bytes, None, None]:
    """Yield `chunks`, which were read before, and then the rest of the stream; `spooler` reads it ahead."""
    waiter.for_chunks()
    with closing(spooler.open(reader) if spooler else Ahead(reader)) as ahead:
        while True:
            ahead.sending()
            yield from chunks
            end = ahead.end
            if end == "complete":
                return
            if end == "broken":
                raise BrokenOff("the response broke off in the worker")
            if end:
                raise ResponseBroken("the body of this response is not kept any more")
            while (found := poll(ahead, waiter)) is None:
                waiter.wait(RECHECK_SECONDS)
            chunks = found


def poll(ahead: Ahead, waiter: Waiter) -> list[bytes] | None:
    """Return the next chunks of a response, empty at its end; None if there are none yet.

    Raises `ResponseBroken` if the client has left, or if the chunks were deleted.
    """
    waiter.reset()
    try:
        chunks = ahead.read()
        if chunks or ahead.end:
            return chunks
    except UNAVAILABLE:
        # The response continues when Redis is back; until then its client waits, or leaves.
        log.debug("Redis is away while a response is sent")
    if waiter.gone:
        raise ResponseBroken("the client closed the connection")
    return None
