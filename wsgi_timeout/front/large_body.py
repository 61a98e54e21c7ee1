"""A request body that is too large to be stored with its call: it is sent to a stream in chunks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain

from wsgi_timeout.errors import RedisUnavailable, StreamLost, UploadBroken, WsgiTimeoutError
from wsgi_timeout.front.process import Runtime
from wsgi_timeout.front.upload_file import UploadFile
from wsgi_timeout.http.request_body import Upload
from wsgi_timeout.retrying import retry
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import seals
from wsgi_timeout.store.keys import UPLOAD_TTL
from wsgi_timeout.store.packing import Buffer
from wsgi_timeout.store.record import Outcome
from wsgi_timeout.store.redis_errors import UNAVAILABLE
from wsgi_timeout.store.streams import Budget, Limits, StreamWriter
from wsgi_timeout.watching.listener import RECHECK_SECONDS
from wsgi_timeout.watching.waiter import Waiter

_RETRY_SECONDS = 0.1

#: Calls a function, again and again for `worker_wait` seconds if Redis is away: see `Submission`.
Patiently = Callable[..., None]


def _before_its_call(upload: Upload, settings: Settings) -> int:
    """Return how many bytes of a body may lie in Redis before its call begins."""
    most = max(settings.buffer, settings.max_spooled_body)
    # A body known to be larger is read by its handler while it arrives in any case.
    return settings.buffer if upload.length is not None and upload.length > most else most


class _Unwanted(Exception):
    """Raised when the handler has ended, or answered without reading on."""


class LargeBody:
    """Sends up to `max_spooled_body` before the call is queued, and the rest while the handler reads it."""

    def __init__(
        self, runtime: Runtime, settings: Settings, call_id: str, waiter: Waiter, upload: Upload
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._call_id = call_id
        self._waiter = waiter
        upload.before_wait = self._finish_sending
        chunks = upload.chunks()
        if seals.are_set():
            chunks = seals.seal_chunks(chunks, call_id, runtime.calls.name)
        self._chunks = chunks
        #: The chunk for which the buffer had no room.
        self._left: list[bytes] = []
        self._file = UploadFile(settings.max_request_file)
        before = _before_its_call(upload, settings)
        limits = Limits(seals.sealed_size(settings.buffer), seals.sealed_size(before))
        budget = Budget(runtime.calls.buffered, settings.max_buffered_bytes)
        scripts, inbox = runtime.calls.scripts, runtime.listener.inbox
        self._writer = StreamWriter(scripts, call_id, inbox, limits, ttl=UPLOAD_TTL, budget=budget)
        #: What was sent to Redis, which has not said yet whether it took it.
        self._sent: Buffer = b""
        #: The handler has begun its response while the request body was still arriving.
        self._answering = False
        self._deadline = math.inf

    def fill_buffer(self, patiently: Patiently) -> bool:
        """Send what fits the buffer, and take in the rest if it may lie here; return whether all was sent.

        Nothing was accepted yet when this raises.

        Raises:
            RedisUnavailable: Redis did not take a chunk for `worker_wait` seconds.
            WsgiTimeoutError: what `Upload.chunks` raises.
        """
        try:
            for chunk in self._chunks:
                if not self._offer_early(chunk):
                    self._left = [bytes(chunk)]
                    self._file.fill(self._chunks)
                    return False
            patiently(self._writer.close, "complete", UPLOAD_TTL)
        except StreamLost as error:
            raise RedisUnavailable(str(error)) from error
        return True

    def _offer_early(self, chunk: Buffer) -> bool:
        """Send a chunk before the call is queued; return False if it must be sent after that."""
        try:
            return retry(
                partial(self._writer.offer, chunk),
                UNAVAILABLE,
                pause=_RETRY_SECONDS,
                seconds=self._settings.worker_wait,
                stopped=lambda: self._writer.count > 0,
            )
        except UNAVAILABLE as error:
            if self._writer.count:
                return False
            # No chunk was taken yet, so there is no call to queue.
            raise RedisUnavailable("Redis does not take this request's body") from error

    def close(self) -> None:
        """Remove what was kept of the body on this machine."""
        self._file.close()

    def send_rest(self) -> None:
        """Send what did not fit; return when all is sent, or when the handler wants no more of it.

        While Redis is away this goes on for `timeout` seconds: after that no handler reads the body.
        """
        self._deadline = time.monotonic() + self._settings.timeout
        self._waiter.for_chunks()
        try:
            self._close("complete" if self._offer_rest() else "broken")
        except UploadBroken:
            self._close("broken")
            raise
        except WsgiTimeoutError as error:
            self._close("broken")
            self._cancel(str(error))
            raise
        finally:
            self._waiter.for_response()

    def _offer_rest(self) -> bool:
        """Send all chunks, and read each while the one before it is on its way; return whether all went."""
        try:
            for chunk in chain(self._left, self._file.chunks(), self._chunks):
                self._finish_sending()
                if self._writer.begin(chunk):
                    self._sent = chunk
                else:
                    self._offer_patiently(chunk)
            self._finish_sending()
        except _Unwanted:
            return False
        finally:
            if self._sent:  # the client has left: the reply must be read, whatever it says
                with suppress(WsgiTimeoutError):
                    self._writer.finish()
        return True

    def _finish_sending(self) -> None:
        """Have the last chunk taken by Redis, before anything else is waited for; raises `_Unwanted`."""
        sent, self._sent = self._sent, b""
        if sent and not self._writer.finish():
            self._offer_patiently(sent)

    def _offer_patiently(self, chunk: Buffer) -> None:
        """Offer a chunk until there is room for it; raises `_Unwanted` if it is not wanted any more."""
        while not self._offer(chunk):
            if not self._wait_for_room():
                raise _Unwanted

    def _offer(self, chunk: Buffer) -> bool:
        try:
            return self._writer.offer(chunk)
        except UNAVAILABLE:
            # An unavailable or full Redis counts as no room; the caller tries again.
            return False

    def _wait_for_room(self) -> bool:
        """Wait for a moment; return whether the body is still wanted."""
        self._waiter.wait(RECHECK_SECONDS)
        self._waiter.reset()
        if self._waiter.gone:
            raise UploadBroken("the client closed the connection")
        try:
            snapshot = self._runtime.calls.look(self._call_id)
        except UNAVAILABLE:
            return time.monotonic() < self._deadline
        if snapshot.ended or snapshot.state is None:
            return False
        if snapshot.head is None:
            return True
        if not self._answering:
            # It may have begun to read since the last offer: the next offer decides.
            self._answering = True
            self._waiter.wake()
            return True
        # A handler that answers without reading ends the upload; another may answer and read at once.
        return self._writer.has_reader

    def _close(self, end: str) -> None:
        ttl = self._settings.queue_ttl + self._settings.timeout
        try:
            # Its client is told of the call next.
            self._writer.close(end, ttl, self._runtime.calls.synced if self._settings.durable else None)
        except UNAVAILABLE:
            # A handler that is not told of the end waits for it until its timeout. The client meanwhile
            # waits for the response, and is redirected in time.
            self._runtime.uploads.close_later(lambda: self._close_late(end, ttl), self._settings.timeout)

    def _close_late(self, end: str, ttl: float) -> None:
        try:
            self._writer.close(end, ttl)
        except StreamLost:
            self._writer.close("broken", ttl)

    def _cancel(self, detail: str) -> None:
        # If this fails, the handler still learns that the body is broken.
        with suppress(*UNAVAILABLE):
            self._runtime.calls.end(self._call_id, Outcome.CANCELLED, detail, self._settings.result_ttl)
