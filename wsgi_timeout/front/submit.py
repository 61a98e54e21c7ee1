"""Handing one request over: its body into a message or a stream, the call into the queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from wsgi_timeout.errors import NoWorker, RedisUnavailable, StreamLost, UploadBroken, WsgiTimeoutError
from wsgi_timeout.front.process import Runtime
from wsgi_timeout.front.wait import Pending
from wsgi_timeout.http.environ import capture
from wsgi_timeout.http.request_body import Upload, impatient
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys
from wsgi_timeout.store.calls import NewCall, Outcome
from wsgi_timeout.store.connection import AWAY, REFUSING, unavailable_is_refusal
from wsgi_timeout.store.keys import UPLOAD_TTL
from wsgi_timeout.store.messages import CallRequest
from wsgi_timeout.store.streams import Limits, StreamWriter
from wsgi_timeout.watching.listener import RECHECK_SECONDS, Waiter

#: Seconds between two looks for a first worker, or for a Redis that comes back.
_RETRY_SECONDS = 0.1
#: Seconds without Redis after which a new request is refused unsent: a connection that breaks is none.
_AWAY_SECONDS = 1.0


class Submission:
    """One request on its way to a worker."""

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        entry: str,
        environ: dict[str, Any],
        pending: Pending,
        waiter: Waiter,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._entry = entry
        self._environ = environ
        self._call_id = pending.call_id
        self._pending = pending
        self._waiter = waiter
        # In a burst a call may wait for its turn at Redis for longer than the listener does to look for it.
        waiter.known = False
        #: The handler was seen to answer while its request body still came in.
        self._answering = False

    def send(self, upload: Upload) -> None:
        """Queue the call; return when its body is in, or no longer wanted."""
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
        writer = self._body_writer()
        with self._runtime.lifeline.hold(keys.request_body(self._call_id)):
            complete = self._send_early(upload, writer)
            # From a whole buffer on the handler reads while the rest comes in.
            self._enqueue(None)
        if not complete:
            self._pour(upload, writer)

    def _send_early(self, upload: Upload, writer: StreamWriter) -> bool:
        """Send what fits the buffer; returns whether that was all."""
        offered = 0.0

        def offer(chunk: bytes) -> bool:
            nonlocal offered
            # The client may have taken its time until then.
            offered = offered or time.monotonic()
            return self._offer(writer, chunk)

        def wait_for_room() -> bool:
            if writer.count:
                return False
            # Not for room, but for Redis: there is nothing yet that a call could be queued with.
            if time.monotonic() >= offered + self._settings.worker_wait:
                raise RedisUnavailable("Redis does not take this request's body")
            time.sleep(_RETRY_SECONDS)
            return True

        try:
            complete = upload.send(offer, wait_for_room)
            if complete:
                self._close_early(writer)
        except StreamLost as error:
            # Nothing was accepted yet.
            raise RedisUnavailable(str(error)) from error
        return complete

    def _body_writer(self) -> StreamWriter:
        limits = Limits(self._settings.buffer, self._settings.buffer)
        scripts, inbox = self._runtime.calls.scripts, self._runtime.listener.inbox
        return StreamWriter(scripts, self._call_id, inbox, limits, ttl=UPLOAD_TTL)

    def _enqueue(self, body: bytes | None) -> None:
        # A deploy may have no worker for a moment. And when a reply was lost nobody knows whether
        # the call was accepted, so the same call is sent again before we say that it was not.
        self._patiently(self._enqueue_once, body)
        self._waiter.known = True

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
            ),
            max_attempts=settings.max_attempts,
            max_queued=settings.max_queued,
            beside=keys.request_body(self._call_id) if body is None else "",
            queue_ttl=settings.queue_ttl,
        )

    def _pour(self, upload: Upload, writer: StreamWriter) -> None:
        """Send the rest of a large body while the handler reads it."""
        self._waiter.streaming = True
        try:
            complete = upload.send(partial(self._offer, writer), partial(self._wait_for_room, writer))
            self._close(writer, "complete" if complete else "broken")
        except UploadBroken:
            self._close(writer, "broken")
            raise
        except WsgiTimeoutError as error:
            self._close(writer, "broken")
            self._runtime.calls.end(self._call_id, Outcome.CANCELLED, str(error), self._settings.result_ttl)
            raise
        finally:
            self._waiter.streaming = False
            # The wake for the response may have been taken for one about room.
            self._waiter.wake()

    @staticmethod
    def _offer(writer: StreamWriter, chunk: bytes) -> bool:
        try:
            return writer.offer(chunk)
        except (*AWAY, *REFUSING):
            # What is away, or full, is waited for like a reader that is slow.
            return False

    def _patiently(self, action: Callable[..., None], *args: Any) -> None:
        """Do what may be done twice; after `worker_wait` give up, with `NoWorker` or `RedisUnavailable`."""
        # As few frames as may be: in a burst thousands stand here, and wait for their turn.
        deadline = time.monotonic() + self._settings.worker_wait
        while True:
            try:
                with self._runtime.turns, unavailable_is_refusal():
                    self._runtime.listener.check(_AWAY_SECONDS)
                    return action(*args)
            except (NoWorker, RedisUnavailable):
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_RETRY_SECONDS)

    def _close_early(self, writer: StreamWriter) -> None:
        """End a body whose call is not queued yet."""
        self._patiently(writer.close, "complete", UPLOAD_TTL)

    def _close(self, writer: StreamWriter, end: str) -> None:
        ttl = self._settings.queue_ttl + self._settings.timeout
        while True:
            try:
                return writer.close(end, ttl)
            except (*AWAY, *REFUSING):
                # A handler that is told of no end waits for one until its timeout.
                time.sleep(_RETRY_SECONDS)

    def _wait_for_room(self, writer: StreamWriter) -> bool:
        self._waiter.wait(RECHECK_SECONDS)
        self._waiter.reset()
        if self._waiter.gone:
            raise UploadBroken("the client closed the connection")
        try:
            snapshot = self._runtime.calls.look(self._call_id)
        except (*AWAY, *REFUSING):
            return True
        if snapshot.ended or snapshot.state is None:
            return False
        if snapshot.head is None:
            return True
        if not self._answering:
            # It may have begun to read since the last offer: what the next one says counts.
            self._answering = True
            self._waiter.wake()
            return True
        # A handler that answers without reading frees the uploader; one may also do both at a time.
        return writer.has_reader
