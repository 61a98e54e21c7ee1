"""The front: a WSGI callable that runs requests as calls, and waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from wsgi_timeout import answers, keys, location, results
from wsgi_timeout.calls import NewCall, Outcome, new_id, new_token
from wsgi_timeout.connection import AWAY, REFUSING, unavailable_is_refusal
from wsgi_timeout.environ import capture
from wsgi_timeout.errors import (
    CallRefused,
    HandlerRaised,
    NoWorker,
    RedisUnavailable,
    ResponseBroken,
    UpgradeUnsupported,
    UploadBroken,
    WsgiTimeoutError,
)
from wsgi_timeout.keys import UPLOAD_TTL
from wsgi_timeout.messages import CallRequest
from wsgi_timeout.mounts import Mounts
from wsgi_timeout.routes import Routes
from wsgi_timeout.runtime import Runtime
from wsgi_timeout.server import wait_limit
from wsgi_timeout.settings import Settings
from wsgi_timeout.streams import Limits, StreamWriter
from wsgi_timeout.upload import Upload
from wsgi_timeout.waiting import RECHECK_SECONDS, Waiter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

#: Seconds between two looks for a first worker, or for a Redis that comes back.
_RETRY_SECONDS = 0.1
#: Seconds without Redis after which a new request is refused unsent: a connection that breaks is none.
_AWAY_SECONDS = 1.0


class Front:
    """Runs the requests that `routes` capture as calls of `name`; hands the others to `app`."""

    def __init__(
        self,
        url: str,
        name: str,
        routes: Routes,
        *,
        target: str = "",
        entry: str = "",
        app: WSGIApplication | None = None,
        mounts: Mounts | None = None,
    ) -> None:
        """Take `url` of Redis, the workers' `target` and its `entry`, and `app` for what is not captured.

        `mounts` are a stub's web functions; of a target that is not imported here, workers tell them.
        """
        self.name = name
        self._url = url
        self._routes = routes
        self._target = target
        self._entry = entry
        self._app = app
        self._mounts = mounts
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None
        self._wait_limit = float("inf")

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        reference = location.reference(environ.get("QUERY_STRING", ""))
        settings = self._routes.match(environ)
        if reference is None and settings is None and self._app is not None:
            return self._app(environ, start_response)
        settings = settings or self._routes.settings
        try:
            runtime = self._here()
            if settings.wait_seconds > self._wait_limit:
                settings = settings.replace(wait_seconds=self._wait_limit)
            if reference is not None:
                return results.Results(settings).answer(runtime, reference, environ, start_response)
            return self._accept(runtime, settings, environ, start_response)
        except (HandlerRaised, ResponseBroken):
            raise  # the server answers it as it would answer the app's own exception
        except results.ClientGone:
            return answers.client_gone(start_response)
        except WsgiTimeoutError as error:
            return answers.error(environ, start_response, error)

    def _here(self) -> Runtime:
        """Return this process's runtime, made after any fork."""
        if self._runtime is None:
            with self._lock:
                if self._runtime is None:
                    with unavailable_is_refusal():
                        self._runtime = Runtime(self._url, self.name, self._target, self._routes.settings)
                    self._wait_limit = wait_limit(self._routes.settings.wait_seconds)
        return self._runtime

    def _accept(
        self, runtime: Runtime, settings: Settings, environ: dict[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            raise UpgradeUnsupported("a WebSocket cannot run as a job: leave its route out with `--except`")
        runtime.check_workers()
        entry = self._entry
        if mounts := self._mounts or runtime.mounts:
            entry, mount, environ = mounts.find(environ)
            settings = mount.apply(settings)
            runtime.check_label(entry)
        upload = Upload(environ, settings.max_request_body)
        pending = results.Pending(
            new_id(),
            new_token(),
            location.local_path(environ),
            location.clean_url(environ, settings.trusted_proxies),
            hop=0,
        )
        with runtime.seat(pending.call_id, environ, hop=pending.hop) as seat:
            _Submission(runtime, settings, entry, environ, pending, seat.waiter).send(upload)
            if not settings.wait_for_response:
                return _accepted(settings, pending, start_response)
            ready = results.wait(
                runtime.calls,
                runtime.listener,
                pending.call_id,
                seat.waiter,
                settings.wait_seconds,
                look_first=False,
            )
            if ready is None:
                seat.keep_place()
                return answers.redirect(start_response, "303 See Other", pending.next_url)
            return results.answer(
                runtime,
                pending,
                ready,
                seat,
                start_response,
                method=environ["REQUEST_METHOD"],
                grace=settings.delivery_grace,
            )


def _accepted(settings: Settings, pending: results.Pending, start_response: StartResponse) -> Iterable[bytes]:
    base = settings.public_url
    status_url = location.status_url(pending.clean_url, pending.call_id, pending.token)
    return answers.accepted(start_response, base + pending.next_url, base + status_url)


class _Submission:
    """Hands one request over: its body into a message or a stream, the call into the queue."""

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        entry: str,
        environ: dict[str, Any],
        pending: results.Pending,
        waiter: Waiter,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._entry = entry
        self._environ = environ
        self._call_id = pending.call_id
        self._pending = pending
        self._waiter = waiter
        #: The handler was seen to answer while its request body still came in.
        self._answering = False

    def send(self, upload: Upload) -> None:
        """Queue the call; return when its body is in, or no longer wanted."""
        body = upload.whole(self._settings.inline_body)
        if body is not None:
            self._enqueue(body)
            return
        writer = self._body_writer()
        complete = upload.send(partial(self._offer, writer), lambda: False)
        if complete:
            self._close_early(writer)
        # From a whole buffer on the handler reads while the rest comes in.
        self._enqueue(None)
        if not complete:
            self._pour(upload, writer)

    def _body_writer(self) -> StreamWriter:
        limits = Limits(self._settings.buffer, self._settings.buffer)
        scripts, inbox = self._runtime.calls.scripts, self._runtime.listener.inbox
        return StreamWriter(scripts, self._call_id, inbox, limits, ttl=UPLOAD_TTL)

    def _enqueue(self, body: bytes | None) -> None:
        settings = self._settings
        call = NewCall(
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
        inbox = self._runtime.listener.inbox if settings.wait_for_response else ""

        def enqueue() -> None:
            with unavailable_is_refusal():
                self._runtime.listener.check(_AWAY_SECONDS)
                self._runtime.calls.enqueue(call, inbox)

        # A deploy may have no worker for a moment. And when a reply was lost nobody knows whether
        # the call was accepted, so the same call is sent again before we say that it was not.
        _retry(enqueue, (NoWorker, RedisUnavailable), settings.worker_wait)

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

    def _close_early(self, writer: StreamWriter) -> None:
        """End a body whose call is not queued yet."""

        def close() -> None:
            with unavailable_is_refusal():
                writer.close("complete", UPLOAD_TTL)

        _retry(close, (RedisUnavailable,), self._settings.worker_wait)

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
        except AWAY:
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


def _retry(action: Callable[[], None], errors: tuple[type[CallRefused], ...], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except errors:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_RETRY_SECONDS)
