"""The front: a WSGI callable that runs requests as calls, and waits for them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from wsgi_timeout import answers, location, results
from wsgi_timeout.calls import NewCall, Outcome, new_id, new_token
from wsgi_timeout.connection import unavailable_is_refusal
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
from wsgi_timeout.routes import Routes
from wsgi_timeout.runtime import Runtime
from wsgi_timeout.settings import Settings
from wsgi_timeout.streams import Limits, StreamWriter
from wsgi_timeout.upload import Upload
from wsgi_timeout.waiting import RECHECK_SECONDS, Waiter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

log = logging.getLogger("wsgi_timeout")

#: Seconds between two looks for a first worker, or for a Redis that comes back.
_RETRY_SECONDS = 0.1


class Front:
    """Runs the requests that `routes` capture as calls of `name`; hands the others to `app`."""

    def __init__(
        self,
        url: str,
        name: str,
        settings: Settings,
        *,
        routes: Routes | None = None,
        app: WSGIApplication | None = None,
    ) -> None:
        """Take `url` of Redis, and `app` for what is not captured (None: all is)."""
        self.name = name
        self._url = url
        self._settings = settings
        self._routes = routes or Routes()
        self._app = app
        self._results = results.Results(settings)
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        reference = location.reference(environ.get("QUERY_STRING", ""))
        if reference is None and self._app is not None and not self._routes.match(environ):
            return self._app(environ, start_response)
        try:
            if reference is not None:
                return self._results.answer(self._here(), reference, environ, start_response)
            return self._accept(self._here(), environ, start_response)
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
                        self._runtime = Runtime(self._url, self.name, self._settings)
        return self._runtime

    def _accept(
        self, runtime: Runtime, environ: dict[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        settings = self._settings
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            raise UpgradeUnsupported("a WebSocket cannot run as a job: leave its route out with `--except`")
        with ExitStack() as held:
            upload = Upload(environ, settings.max_request_body)
            pending = self._new_pending(environ)
            place = held.enter_context(runtime.places.take())
            waiter = held.enter_context(runtime.listener.waiter(pending.call_id, environ))
            self._submit(runtime, environ, pending, upload, waiter)
            if not settings.wait_for_response:
                return self._accepted(pending, start_response)
            ready = results.wait(
                runtime.calls,
                runtime.listener,
                pending.call_id,
                waiter,
                settings.wait_seconds,
                look_first=False,
            )
            if ready is None:
                place.kept_for = pending.call_id
                return answers.redirect(start_response, "303 See Other", pending.next_url)
            return results.answer(
                runtime,
                pending,
                ready,
                waiter,
                held,
                start_response,
                method=environ["REQUEST_METHOD"],
                grace=settings.delivery_grace,
            )

    def _new_pending(self, environ: dict[str, Any]) -> results.Pending:
        return results.Pending(
            new_id(),
            new_token(),
            location.local_path(environ),
            location.clean_url(environ, self._settings.trusted_proxies),
            hop=0,
        )

    def _accepted(self, pending: results.Pending, start_response: StartResponse) -> Iterable[bytes]:
        base = self._settings.public_url
        status_url = location.status_url(pending.clean_url, pending.call_id, pending.token)
        return answers.accepted(start_response, base + pending.next_url, base + status_url)

    def _submit(
        self,
        runtime: Runtime,
        environ: dict[str, Any],
        pending: results.Pending,
        upload: Upload,
        waiter: Waiter,
    ) -> None:
        """Queue the call, with its body or with a stream of it; return when the body is in."""
        body = upload.whole(self._settings.inline_body)
        writer = None
        complete = body is not None
        if body is None:
            writer = self._body_writer(runtime, pending.call_id)
            with unavailable_is_refusal():
                complete = upload.send(writer, lambda: False)
                if complete:
                    writer.close("complete", UPLOAD_TTL)
        self._enqueue(runtime, environ, pending, body)
        if writer and not complete:
            self._pour(runtime, pending.call_id, upload, writer, waiter)

    def _body_writer(self, runtime: Runtime, call_id: str) -> StreamWriter:
        limits = Limits(self._settings.buffer, self._settings.buffer)
        return StreamWriter(runtime.calls.scripts, call_id, runtime.listener.inbox, limits, ttl=UPLOAD_TTL)

    def _enqueue(
        self, runtime: Runtime, environ: dict[str, Any], pending: results.Pending, body: bytes | None
    ) -> None:
        settings = self._settings
        call = NewCall(
            id=pending.call_id,
            token=pending.token,
            path=pending.path,
            method=environ["REQUEST_METHOD"],
            request=CallRequest(
                environ=capture(environ),
                body=body,
                timeout=settings.timeout,
                inline_body=settings.inline_body,
                buffer=settings.buffer,
                max_result=settings.max_result,
                unread_timeout=settings.unread_timeout,
                result_ttl=settings.result_ttl,
            ),
            max_attempts=settings.max_attempts,
            max_queued=settings.max_queued,
            queue_ttl=settings.queue_ttl,
        )
        inbox = runtime.listener.inbox if settings.wait_for_response else ""

        def enqueue() -> None:
            with unavailable_is_refusal():
                runtime.calls.enqueue(call, inbox)

        # A deploy may have no worker for a moment. And when a reply was lost nobody knows whether
        # the call was accepted, so the same call is sent again before we say that it was not.
        _retry(enqueue, (NoWorker, RedisUnavailable), settings.worker_wait)

    def _pour(
        self, runtime: Runtime, call_id: str, upload: Upload, writer: StreamWriter, waiter: Waiter
    ) -> None:
        """Send the rest of a large body while the handler reads it, until it is in or unwanted."""
        waiter.streaming = True
        ttl = self._settings.queue_ttl + self._settings.timeout
        calls = runtime.calls

        def wait_for_room() -> bool:
            waiter.wait(RECHECK_SECONDS)
            waiter.reset()
            snapshot = calls.look(call_id)
            # A handler that answers before it has read all frees the uploader.
            return not (snapshot.ended or snapshot.head) and snapshot.state is not None

        try:
            upload.send(writer, wait_for_room)
            writer.close("complete", ttl)
        except UploadBroken:
            writer.close("broken", ttl)
            raise
        except WsgiTimeoutError as error:
            writer.close("broken", ttl)
            calls.end(call_id, Outcome.CANCELLED, str(error), self._settings.result_ttl)
            raise
        finally:
            waiter.streaming = False


def _retry(action: Callable[[], None], errors: tuple[type[CallRefused], ...], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except errors:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_RETRY_SECONDS)
