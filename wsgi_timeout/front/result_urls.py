"""What a result URL and a status URL answer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from wsgi_timeout.errors import (
    AlreadyDelivered,
    BodyTooLarge,
    CallRefused,
    CallUnknown,
    TooManyWaiting,
    UploadBroken,
    UploadStalled,
)
from wsgi_timeout.front import event_stream, status_url
from wsgi_timeout.front.delivery import Delivery
from wsgi_timeout.front.process import Runtime
from wsgi_timeout.front.wait import RETRY_SECONDS, ClientGone, wait
from wsgi_timeout.front.waiting_page import Visit
from wsgi_timeout.http import answers, urls
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.http.request_body import Upload, impatient
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.record import Snapshot, Tombstone
from wsgi_timeout.store.redis_errors import UNAVAILABLE, unavailable_is_refusal
from wsgi_timeout.watching.listener import Waiter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Seconds that a result URL is held where none can wait any more.
FULL_SECONDS = 1.0


class Results:
    """Our own URLs: the result URL and the status URL of every call of one front."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def answer(
        self,
        runtime: Runtime,
        reference: urls.Reference,
        environ: dict[str, Any],
        start_response: StartResponse,
        visit: Visit | None = None,
    ) -> Iterable[bytes]:
        """Answer a request with our parameter: it never reaches the app."""
        drain(environ, self._settings)
        method = environ["REQUEST_METHOD"]
        path = urls.local_path(environ)
        clean_url = urls.clean_url(environ, self._settings.trusted_proxies)
        pending = Pending(reference.call_id, reference.token, path, clean_url, max(1, reference.hop))
        if "prefetch" in environ.get("HTTP_SEC_PURPOSE", environ.get("HTTP_PURPOSE", "")):
            raise CallRefused("a prefetch must not use up a result")
        if reference.kind == "status":
            # A person who cancels on the waiting page wants to see what became of it.
            then = pending.next_url if visit is not None and method == "POST" else ""
            return self._status(runtime, pending, method, start_response, then)
        if visit is not None and method == "GET" and (page := visit.at_result_url(pending)) is not None:
            return page
        return self._result(runtime, pending, method, environ, start_response)

    def _status(
        self,
        runtime: Runtime,
        pending: Pending,
        method: str,
        start_response: StartResponse,
        then: str,
    ) -> Iterable[bytes]:
        calls, call_id = runtime.calls, pending.call_id
        with unavailable_is_refusal():
            found = _authorize(calls, pending)
            if isinstance(found, Tombstone):
                raise _gone(found, pending)
            if method in {"POST", "DELETE"}:
                return status_url.cancel(calls, call_id, self._settings.result_ttl, start_response, then)
            result_url = self._settings.public_url + pending.next_url
            return status_url.show(calls, call_id, result_url, start_response)

    def _result(
        self,
        runtime: Runtime,
        pending: Pending,
        method: str,
        environ: dict[str, Any],
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        settings = self._settings
        try:
            seated = runtime.seat(pending.call_id, environ, hop=pending.hop)
        except TooManyWaiting:
            # Its call was accepted: it must not end in a 503, and comes again. Not at once, since
            # clients follow so many redirects only.
            if not runtime.listener.draining:
                time.sleep(FULL_SECONDS)
            return answers.redirect(start_response, "303 See Other", pending.next_url)
        with seated as seat:
            deadline = time.monotonic() + self._settings.wait_seconds
            found = find(runtime, pending, seat.waiter, deadline)
            if isinstance(found, Tombstone) or (found and found.delivered_ms and method not in _SAFE):
                return _after_delivery(found, pending, method, start_response)
            ready = None
            # A response that came with a wake may lie here already, for whoever named the id: without a
            # look at the token nobody waits for it.
            if found is not None:
                ready = wait(runtime, seat, deadline - time.monotonic(), look_first=True)
            if ready is None:
                seat.keep_place()
                return answers.redirect(start_response, "303 See Other", pending.next_url)
            delivery = Delivery(runtime, pending, ready.snapshot, method, settings.delivery_grace)
            return event_stream.answer(ready, delivery, seat, start_response, environ, settings, deadline)


def drain(environ: dict[str, Any], settings: Settings) -> None:
    """Read the body of a request that gives us none: `curl -X POST -L` sends it on every hop."""
    try:
        upload = Upload(environ, settings.max_request_body)
        if not upload.empty:
            with impatient(environ, settings.upload_timeout):
                upload.discard()
    except UploadStalled:
        raise
    except (UploadBroken, BodyTooLarge):
        pass  # the server closes such a connection by itself


def find(runtime: Runtime, pending: Pending, waiter: Waiter, deadline: float) -> Snapshot | Tombstone | None:
    """Return the call, woken from now on; None if Redis stayed away: nobody knows then whose it is.

    Raises `CallUnknown`, `ClientGone`.
    """
    while True:
        try:
            with runtime.turns:
                runtime.listener.check()
                found = _authorize(runtime.calls, pending)
                if isinstance(found, Snapshot) and not found.ended:
                    runtime.calls.join(pending.call_id, runtime.listener.inbox)
        except UNAVAILABLE:
            if time.monotonic() >= deadline or runtime.listener.draining:
                return None
            if waiter.gone:
                raise ClientGone from None
            waiter.wait(RETRY_SECONDS)
        else:
            return found


def _authorize(calls: Calls, pending: Pending) -> Snapshot | Tombstone:
    found = calls.authorize(pending.call_id, pending.token, pending.path) if pending.call_id else None
    if found is None:
        raise CallUnknown("there is no such call, or not for this URL")
    return found


def _after_delivery(
    found: Snapshot | Tombstone,
    pending: Pending,
    method: str,
    start_response: StartResponse,
) -> Iterable[bytes]:
    if method not in _SAFE:
        # A form without `action` posts to the address that the browser shows, which is this one.
        return answers.redirect(start_response, "307 Temporary Redirect", pending.clean_url)
    raise _gone(found, pending)


def _gone(found: Snapshot | Tombstone, pending: Pending) -> AlreadyDelivered:
    text = "this result was delivered, and is not kept any longer"
    return AlreadyDelivered(text, found.delivered_ms or 0, pending.clean_url)
