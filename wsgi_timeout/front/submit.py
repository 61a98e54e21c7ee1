"""Submits one request: its body goes into a message or a stream, the call into the queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from wsgi_timeout import metrics
from wsgi_timeout.errors import NoWorker, RedisUnavailable
from wsgi_timeout.front.exchange import Exchange
from wsgi_timeout.front.large_body import LargeBody
from wsgi_timeout.front.turns import Turn, apart
from wsgi_timeout.http.asked import SAFE
from wsgi_timeout.http.environ import capture
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.http.request_body import Upload, impatient
from wsgi_timeout.retrying import retry
from wsgi_timeout.store import keys, seals
from wsgi_timeout.store.messages import CallRequest
from wsgi_timeout.store.record import NewCall
from wsgi_timeout.store.redis_errors import UNAVAILABLE, unavailable_is_refusal
from wsgi_timeout.watching.waiter import Waiter

#: Seconds between two tries while there is no worker yet, or Redis is away.
_RETRY_SECONDS = 0.1
#: Seconds without an answer from Redis after which new requests are refused without trying to send them.
#: Less than this may be one broken connection.
_AWAY_SECONDS = 1.0


class Submission:
    """One request on its way to a worker."""

    def __init__(
        self,
        exchange: Exchange,
        entry: str,
        pending: Pending,
        waiter: Waiter,
        turn: Turn,
        *,
        untold_seconds: float,
        client_may_return: bool,
        first_wait: str,
    ) -> None:
        """Prepare it.

        Args:
            exchange: the request, as the app is to see it.
            entry: the WSGI app of the target that runs it.
            pending: its call.
            waiter: is told when the call was accepted, and wakes a sender of chunks.
            turn: at Redis; taken by now, or when it is needed.
            untold_seconds: for how long nobody will be told the result URL.
            client_may_return: a client that leaves may ask for its call again.
            first_wait: the key of a note; if there is one, `FirstWaitNoted` is raised and nothing is sent.
                Empty: none is looked for.
        """
        self._runtime = exchange.runtime
        self._settings = exchange.settings
        self._environ = exchange.environ
        self._entry = entry
        self._call_id = pending.call_id
        self._pending = pending
        self._waiter = waiter
        self._turn = turn
        self._untold_seconds = untold_seconds
        self._client_may_return = client_may_return
        self._first_wait = first_wait

    def send(self, upload: Upload) -> None:
        """Queue the call; return when its body was sent, or when the handler wants no more of it."""
        if upload.empty:
            self._enqueue(b"")
            return
        with impatient(self._environ, self._settings.upload_timeout):
            self._send(upload)

    def _send(self, upload: Upload) -> None:
        body = upload.whole(self._settings.inline_body)
        if body is not None:
            self._enqueue(body)
            return
        large = LargeBody(self._runtime, self._settings, self._call_id, self._waiter, upload)
        with closing(large):
            with self._runtime.uploads.hold(keys.request_body(self._call_id)):
                complete = large.fill_buffer(self._patiently)
                # The buffer is full: the handler now reads while the rest arrives.
                self._enqueue(None)
            if not complete:
                large.send_rest()

    def _enqueue(self, body: bytes | None) -> None:
        # During a deploy there may be no worker for a moment. And if a reply was lost, the call may have
        # been accepted: the same call is sent again before the client is told that it was not.
        began = time.monotonic()
        try:
            self._patiently(self._enqueue_once, body)
        except RedisUnavailable:
            if self._settings.durable:
                # It may lie in the queue, not on disk yet: a client that is refused sends it again.
                with suppress(*UNAVAILABLE):
                    self._runtime.calls.withdraw(self._call_id)
            raise
        self._waiter.accepted()
        seconds, route = time.monotonic() - began, self._environ.get(metrics.ROUTE_KEY, "*")
        metrics.observe("accept_seconds", seconds, self._runtime.calls.name, route)

    def _enqueue_once(self, body: bytes | None) -> None:
        inbox = self._runtime.listener.inbox if self._settings.wait_for_response else ""
        self._runtime.calls.enqueue(self._new_call(body), inbox)

    def _new_call(self, body: bytes | None) -> NewCall:
        settings = self._settings
        return NewCall(
            id=self._call_id,
            token=self._pending.token,
            path=self._pending.path,
            method=self._environ["REQUEST_METHOD"],
            request=CallRequest(
                environ=capture(self._environ),
                body=body,
                entry=self._entry,
                timeout=settings.timeout,
                inline_body=settings.inline_body,
                buffer=settings.buffer,
                max_result=settings.max_result,
                unread_timeout=settings.unread_timeout,
                result_ttl=settings.result_ttl,
                resume_window=settings.resume_window if settings.event_streams == "resumable" else 0.0,
                reader_timeout=settings.reader_timeout,
                sealed_body=body is None and seals.are_set(),
            ),
            max_attempts=settings.max_attempts,
            max_queued=settings.max_queued,
            max_buffered_bytes=settings.max_buffered_bytes,
            payload_key=keys.request_body(self._call_id) if body is None else "",
            queue_ttl=settings.queue_ttl,
            origin=self._pending.origin,
            untold_seconds=self._untold_seconds,
            left=self._left(),
            abandon_after=settings.abandon_after,
            first_wait=self._first_wait,
            durable=settings.durable,
        )

    def _left(self) -> bool:
        """Return whether the client has left already, and cannot ask for this call again."""
        safe = self._environ["REQUEST_METHOD"] in SAFE
        return safe and not self._client_may_return and self._waiter.has_left()

    def _patiently(self, action: Callable[..., None], *args: Any) -> None:
        """Try an idempotent action for `worker_wait` seconds; then raise `NoWorker` or `RedisUnavailable`."""

        def ask() -> None:
            with unavailable_is_refusal():
                self._runtime.listener.check(_AWAY_SECONDS)
                if self._settings.durable:
                    # No turn: it waits for a sync of the disk, and would hold up those that do not.
                    action(*args)
                else:
                    apart(action, args, self._turn)

        retry(ask, (NoWorker, RedisUnavailable), pause=_RETRY_SECONDS, seconds=self._settings.worker_wait)
