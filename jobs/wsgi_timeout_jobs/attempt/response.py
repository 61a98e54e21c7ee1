"""The sink of a captured response: a small one is recorded with the outcome, others go into a stream."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from wsgi_timeout import metrics
from wsgi_timeout.http.events import STREAMS
from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.messages import CallRequest, ResponseHead
from wsgi_timeout.store.record import Attempt, Outcome
from wsgi_timeout.store.streams import Budget, Limits, StreamWriter
from wsgi_timeout.watching.listener import Listener
from wsgi_timeout_jobs.attempt.body_writer import BodyWriter
from wsgi_timeout_jobs.attempt.persist import until_redis_answers
from wsgi_timeout_jobs.process import forks
from wsgi_timeout_jobs.process.interrupts import Interrupts


class Response:
    """Takes the response of one attempt.

    Blocks are passed on at once (PEP 3333: no block may be held back), unless the whole response is known to
    have come: the last item of a list, or as many bytes as Content-Length says.
    """

    def __init__(
        self,
        attempts: Attempts,
        listener: Listener,
        interrupts: Interrupts,
        attempt: Attempt,
        request: CallRequest,
        deadline: float,
        hold: Callable[[], AbstractContextManager[None]],
        tell: Callable[[], None],
    ) -> None:
        """Prepare to take a response.

        Args:
            attempts: records the outcome.
            listener: wakes a writer that waits for room.
            interrupts: held back while a command is sent.
            attempt: whose response it is.
            request: its limits.
            deadline: when the handler's timeout is over, in monotonic seconds.
            hold: stops the pool from interrupting this attempt, in a `with` block.
            tell: called when the outcome was recorded.
        """
        self._attempts = attempts
        self._listener = listener
        self._interrupts = interrupts
        self._attempt = attempt
        self._request = request
        self._deadline = deadline
        self._hold = hold
        self._tell = tell
        self._no_body = request.environ["REQUEST_METHOD"] == "HEAD"
        self._head: ResponseHead | None = None
        self._length: int | None = None
        self._count = 0
        self._held: list[bytes] = []
        self._writer: BodyWriter | None = None
        #: The app has ended, or its response is complete.
        self._settled = False
        #: The attempt has not ended with a complete response of the app.
        self.failed = False
        #: The outcome is recorded; the handler may still run.
        self.recorded = False
        #: The outcome that was recorded; None: none, or something else has ended the call.
        self.outcome: Outcome | None = None

    @property
    def began(self) -> bool:
        """Whether bytes were sent, so that no other response can replace this one."""
        return self._writer is not None

    @property
    def head(self) -> ResponseHead | None:
        """The app's status and headers, once they are final."""
        return self._head

    def begin(self, head: ResponseHead) -> None:
        self._head = head
        lengths = [value.strip(" \t") for name, value in head.headers if name.lower() == "content-length"]
        if lengths and lengths[-1].isdigit():
            self._length = int(lengths[-1])

    @property
    def more(self) -> Callable[[bytes], None] | None:
        """What takes each block of a body of unknown length, once it has begun."""
        return self._writer.send if self._writer and self._length is None and not self.recorded else None

    def write(self, chunk: bytes, *, last: bool) -> None:
        if self.recorded:
            return
        if not self._has_body():
            # The client can only see status and headers, which a server sends with the first byte.
            self._finish()
            return
        if self._length is not None:
            # A server sends no more than `Content-Length` bytes (RFC 9112 section 6.3).
            chunk = chunk[: self._length - self._count]
        self._held.append(chunk)
        self._count += len(chunk)
        if self._count == self._length:
            # The client has all of it, and need not wait for what the app does afterwards.
            self._finish()
        elif not last:
            self._flush()

    def end(self) -> None:
        if self.recorded:
            return
        if self._length is None or self._count >= self._length or not self._has_body():
            self._finish()
            return
        detail = f"the app announced {self._length} bytes in Content-Length and gave {self._count}"
        with self._settling():
            if self.began and self._held:
                self._flush()
            self.fail(Outcome.BROKEN, detail)

    def fail(self, outcome: Outcome, detail: str) -> None:
        """Record that there is no response, or that it breaks off."""
        if self.recorded:
            return
        self.failed = True
        if self.began and outcome is Outcome.RAISED:
            outcome = Outcome.BROKEN
        whole = (self._head, b"".join(self._held)) if outcome is Outcome.BROKEN and self._head else None
        with self._settling():
            if outcome is Outcome.BROKEN:
                self._drain()  # the client gets what the app yielded before it failed
            else:
                self.close()
            self._record(outcome, detail=detail, response=None if self.began else whole)

    def _has_body(self) -> bool:
        # RFC 9110 section 15.4.5: a 304 may have the `Content-Length` of the 200.
        assert self._head is not None
        return not self._no_body and self._head.status[:3] not in {"204", "304"}

    def _finish(self) -> None:
        assert self._head is not None
        body = b"".join(self._held)
        with self._settling():
            if not self.began and len(body) <= self._request.inline_body:
                self._record(Outcome.DONE, response=(self._head, body))
                return
            if body:
                self._flush()
            self._drain()
            self._record(Outcome.DONE)

    @contextmanager
    def _settling(self) -> Iterator[None]:
        """Keep the pool from ending the attempt while its response waits for Redis."""
        forks.end_here()  # a process that the handler forked must not touch the worker's shared memory
        # Up to here the pool has enforced the deadline.
        self._settled = True
        if self._writer:
            self._writer.patience = self._deadline
        with self._interrupts.disarmed(), self._hold():
            yield

    def _flush(self) -> None:
        assert self._head is not None
        request = self._request
        if self._writer is None:
            # Of a body known to be larger than that, no more is written ahead than the buffer.
            fits = self._length is None or self._length <= request.max_result
            ahead = request.max_result if fits else request.buffer
            limits = Limits(request.buffer, ahead, request.resume_window)
            ttl = request.timeout + request.result_ttl
            stream = StreamWriter(
                self._attempts.scripts,
                self._attempt.call_id,
                self._listener.inbox,
                limits,
                ttl=ttl,
                attempt=self._attempt.number,
                head=self._head.pack(),
                budget=Budget(self._attempts.buffered),
            )
            self._writer = BodyWriter(
                stream,
                self._attempt.call_id,
                self._listener,
                self._interrupts,
                request,
                reader_timeout=_reader_timeout(self._head, request),
                answers=self._attempts.answers,
            )
            if self._settled:
                self._writer.patience = self._deadline
        data = b"".join(self._held)
        self._held.clear()
        self._writer.send(data)

    def _drain(self) -> None:
        if self._writer:
            self._writer.drain()

    def close(self) -> None:
        """Send nothing more; called when the handler has ended."""
        if self._writer:
            self._writer.abandon()

    def _record(
        self,
        outcome: Outcome,
        *,
        detail: str = "",
        response: tuple[ResponseHead, bytes] | None = None,
    ) -> None:
        began = time.monotonic()
        until_redis_answers(
            lambda: self._attempts.finish(
                self._attempt,
                outcome,
                self._request.result_ttl,
                detail=detail,
                response=response,
                streamed=self._writer.count if self._writer else 0,
            ),
            self._interrupts.shield,
            answers=self._attempts.answers,
        )
        self.recorded = True
        self.outcome = outcome
        route = self._request.environ.get(metrics.ROUTE_KEY, "*")
        metrics.observe("record_seconds", time.monotonic() - began, self._attempts.name, route)
        self._tell()


def _reader_timeout(head: ResponseHead, request: CallRequest) -> float:
    """Return after how many seconds without a reader a response ends; infinite unless it may be endless."""
    types = [value for name, value in head.headers if name.lower() == "content-type"]
    if not any(value.partition(";")[0].strip().lower() in STREAMS for value in types):
        return math.inf
    return request.resume_window or request.reader_timeout
