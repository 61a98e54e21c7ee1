"""Where a captured response goes: a small one whole, with the outcome; any other into its stream."""

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
    """The sink of one attempt.

    What the app yields is passed on at once (PEP 3333: no block may be held back), unless it is
    already known to be all: the last of a list, or as many bytes as Content-Length says.
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
        """`hold` keeps the parent from this attempt, which else may run until `deadline`.

        `tell` is called when its outcome is recorded.
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
        #: The app has ended, or its response has.
        self._settled = False
        #: It ended otherwise than with the app's whole response.
        self.failed = False
        #: The outcome is recorded; the handler may still run.
        self.recorded = False
        #: What was recorded; None: nothing, others have ended it.
        self.outcome: Outcome | None = None

    @property
    def began(self) -> bool:
        """Whether bytes are on their way, so that no other response can replace this one."""
        return self._writer is not None

    def begin(self, head: ResponseHead) -> None:
        self._head = head
        lengths = [value.strip(" \t") for name, value in head.headers if name.lower() == "content-length"]
        if lengths and lengths[-1].isdigit():
            self._length = int(lengths[-1])

    def write(self, chunk: bytes, *, last: bool) -> None:
        if self.recorded:
            return
        if not self._has_body():
            # The head is all that the client can see, and a server sends it with the first byte.
            self._finish()
            return
        if self._length is not None:
            # A server sends no more than was announced (RFC 9112 section 6.3).
            chunk = chunk[: self._length - self._count]
        self._held.append(chunk)
        self._count += len(chunk)
        if self._count == self._length:
            # All that the client can see: it need not wait for what the app does afterwards.
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
        """Record that there is no response, or no rest of one."""
        if self.recorded:
            return
        self.failed = True
        if self.began and outcome is Outcome.RAISED:
            outcome = Outcome.BROKEN
        whole = (self._head, b"".join(self._held)) if outcome is Outcome.BROKEN and self._head else None
        with self._settling():
            if outcome is Outcome.BROKEN:
                self._drain()  # what the app gave before it failed is its client's
            else:
                self.close()
            self._record(outcome, detail=detail, response=None if self.began else whole)

    def _has_body(self) -> bool:
        # RFC 9110 section 15.4.5: a 304 may announce the length that a 200 would have.
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
        """Have nobody end what the app has ended: a Redis that is away must not cost its response."""
        forks.end_here()  # before it touches what the worker shares with its parent
        # Until the app has ended its parent sees to the deadline.
        self._settled = True
        if self._writer:
            self._writer.patience = self._deadline
        with self._interrupts.disarmed(), self._hold():
            yield

    def _flush(self) -> None:
        assert self._head is not None
        request = self._request
        if self._writer is None:
            # What is known to be larger needs no more than its reader keeps up with.
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
        """Send nothing more: the handler has ended."""
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
    """Return the seconds for which a response goes on without its reader: one that may have no end."""
    types = [value for name, value in head.headers if name.lower() == "content-type"]
    if not any(value.partition(";")[0].strip().lower() in STREAMS for value in types):
        return math.inf
    return request.resume_window or request.reader_timeout
