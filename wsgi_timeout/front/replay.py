"""A recorded response, played to the WSGI server; delivered when it was sent in full."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import redis

from wsgi_timeout.errors import ResponseBroken, ResultTrimmed
from wsgi_timeout.front import policy
from wsgi_timeout.front.process import Seat
from wsgi_timeout.store.calls import Outcome, Snapshot
from wsgi_timeout.store.connection import AWAY, REFUSING
from wsgi_timeout.store.streams import StreamReader
from wsgi_timeout.watching.listener import RECHECK_SECONDS, Waiter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

log = logging.getLogger("wsgi_timeout")


class Replay:
    """The iterable of one response. PEP 3333: the server calls `close()` at the end, however it came."""

    def __init__(
        self,
        chunks: Iterator[bytes],
        reader: StreamReader | None,
        deliver: Callable[[], None] | None,
        seat: Seat,
        *,
        again: bool,
    ) -> None:
        """Call `deliver` after the last chunk; if it cannot be had `again`, also after a break."""
        self._chunks = chunks
        self._reader = reader
        self._deliver = deliver
        self._seat = seat
        self._done = not again
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        self._done = True

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with self._seat:
            if self._reader:
                self._leave(self._reader)
            if self._done and self._deliver:
                try:
                    self._deliver()
                except (*AWAY, redis.exceptions.ResponseError) as error:
                    # It stays until its TTL: having a result twice beats losing it.
                    log.warning("could not note a delivery: %s", error)

    @staticmethod
    def _leave(reader: StreamReader) -> None:
        try:
            reader.leave()
        except (*AWAY, redis.exceptions.ResponseError):
            log.debug("could not leave a stream; its TTL ends it")

    def __del__(self) -> None:
        # Some middleware puts an answer of its own in place of ours, and closes nothing. The garbage
        # collector comes in the middle of anything: no lock may be taken here, nor Redis be asked.
        if not self._closed:
            self._seat.close_later(self.close)


def begin(
    snapshot: Snapshot,
    reader: StreamReader | None,
    first: list[bytes],
    waiter: Waiter,
    start_response: StartResponse,
    *,
    method: str,
    on_result_url: bool,
) -> Iterator[bytes]:
    """Send the head, and return what iterates over the body.

    `first` are the chunks that `reader` has returned already: once they are read no other attempt
    can replace this one, so only now may the head go out.
    """
    assert snapshot.head is not None
    headers = policy.on_result_url(snapshot.head.headers) if on_result_url else snapshot.head.headers
    start_response(snapshot.head.status, headers)
    if method == "HEAD":
        return iter(())
    if reader is None:
        return _whole(snapshot)
    return _stream(reader, first, waiter)


def _whole(snapshot: Snapshot) -> Iterator[bytes]:
    yield snapshot.body or b""
    if snapshot.outcome == Outcome.BROKEN:
        raise ResponseBroken(snapshot.detail)


def _stream(reader: StreamReader, chunks: list[bytes], waiter: Waiter) -> Iterator[bytes]:
    waiter.streaming = True
    while True:
        yield from chunks
        if reader.end == "complete":
            return
        if reader.end == "broken" or reader.missing:
            raise ResponseBroken("the response broke off in the worker")
        chunks = _next(reader, waiter)


def _next(reader: StreamReader, waiter: Waiter) -> list[bytes]:
    while True:
        waiter.reset()
        try:
            chunks = reader.poll()
            if chunks or reader.end or reader.missing:
                return chunks
        except ResultTrimmed as error:
            raise ResponseBroken(str(error)) from error
        except (*AWAY, *REFUSING):
            # The response goes on when Redis is back; until then its client waits, or leaves.
            log.debug("Redis is away while a response is sent")
        if waiter.gone:
            raise ResponseBroken("the client closed the connection")
        waiter.wait(RECHECK_SECONDS)
