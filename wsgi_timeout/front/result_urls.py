"""Requests on result URLs and status URLs, and how they are answered."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from wsgi_timeout import tracing
from wsgi_timeout.errors import (
    AlreadyDelivered,
    BodyTooLarge,
    CallRefused,
    CallUnknown,
    ResultTrimmed,
    UploadBroken,
    UploadStalled,
)
from wsgi_timeout.front import event_stream, redirects, replay, status_url
from wsgi_timeout.front.delivery import Delivery
from wsgi_timeout.front.exchange import Exchange
from wsgi_timeout.front.places import Seat
from wsgi_timeout.front.process import Runtime
from wsgi_timeout.front.put_off import seat_or_put_off
from wsgi_timeout.front.resumed_download import RunAnew
from wsgi_timeout.front.wait import RETRY_SECONDS, ClientGone, call_state, wait
from wsgi_timeout.front.waiting_page import Visit
from wsgi_timeout.http import answers, urls
from wsgi_timeout.http.asked import SAFE, Asked, wants_another_run
from wsgi_timeout.http.navigation import is_prefetch, is_resumed_download
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.http.request_body import Upload, impatient
from wsgi_timeout.retrying import retry
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.record import Outcome, Snapshot, Tombstone
from wsgi_timeout.store.redis_errors import UNAVAILABLE, unavailable_is_refusal
from wsgi_timeout.store.time_limit import within
from wsgi_timeout.watching.waiter import Waiter

#: Seconds that the body of a GET may pause.
_PAUSE_SECONDS = 1.0
#: Outcomes that are no failures of the app.
_FINE = frozenset({None, Outcome.DONE, Outcome.CANCELLED})


def answer(exchange: Exchange, reference: urls.Reference, visit: Visit | None) -> Iterable[bytes]:
    """Answer a request that carries our parameter; it never reaches the app."""
    environ, method = exchange.environ, exchange.method
    path, clean_url = urls.canonical_path(environ), exchange.own_url()
    pending = Pending(reference.call_id, reference.token, path, clean_url, max(1, reference.hop))
    if is_prefetch(environ):
        raise CallRefused("a prefetch must not use up a result")
    if reference.kind == "status":
        # A person who cancels on the waiting page is then shown the outcome.
        then = pending.next_url if visit is not None and method == "POST" else ""
        return _answer_status(exchange, pending, then)
    if visit is not None and method == "GET" and (page := visit.at_result_url(pending)) is not None:
        return page
    return _answer_result(exchange, pending)


def _answer_status(exchange: Exchange, pending: Pending, then: str) -> Iterable[bytes]:
    calls, settings, start_response = exchange.runtime.calls, exchange.settings, exchange.start_response
    with unavailable_is_refusal():
        found = _authorize(calls, pending)
        drain(exchange.environ, settings)
        if isinstance(found, Tombstone):
            raise _gone(found, pending)
        if exchange.method in {"POST", "DELETE"}:
            return status_url.cancel(calls, pending.call_id, settings.result_ttl, start_response, then)
        result_url = urls.origin(exchange.environ, settings.public_url) + pending.next_url
        return status_url.show(calls, pending.call_id, result_url, start_response)


def _answer_result(exchange: Exchange, pending: Pending) -> Iterable[bytes]:
    settings, environ = exchange.settings, exchange.environ
    seated = seat_or_put_off(exchange, pending)
    if seated is None:
        return redirects.to_result_url(exchange, pending)
    with seated as seat:
        deadline = time.monotonic() + settings.wait_seconds
        found = find(exchange.runtime, pending, seat.waiter, deadline)
        # Only now: no body is read of a request without a valid token.
        deadline += drain(environ, settings)
        if found is None:
            # Redis could not tell whether the token is valid, so this request may not wait for the
            # call: a response may already have arrived with the listener's wake.
            seat.keep_place()
            return redirects.to_result_url(exchange, pending)
        pending = replace(pending, origin=found.origin)
        call = Asked.unpack(found.origin.asked)
        tracing.in_trace_of(environ, call.trace)
        request = _Request(Asked.on_result_url(environ), call, pending, exchange)
        if request.is_new(found):
            return request.anew()
        if isinstance(found, Tombstone):
            raise _gone(found, pending)
        return _respond(request, seat, deadline)


def _respond(request: _Request, seat: Seat, deadline: float) -> Iterable[bytes]:
    pending, exchange = request.pending, request.exchange
    try:
        ready = wait(exchange.runtime, seat, deadline - time.monotonic(), look_first=True)
    except ResultTrimmed:
        if not request.may_continue:
            raise
        return request.anew()
    if ready is None:
        seat.keep_place()
        return redirects.to_result_url(exchange, pending, partial(call_state, exchange.runtime, seat))
    delivery = Delivery.of(exchange, pending, ready.snapshot)
    if not request.takes(ready.snapshot):
        replay.pass_over(ready, delivery)
        return request.anew(had_terms=request.call.has_terms)
    return event_stream.answer(exchange, ready, delivery, seat, deadline)


def drain(environ: dict[str, Any], settings: Settings) -> float:
    """Read and drop a request's body; return how many seconds that took.

    `curl -X POST -L` sends its body with every hop. With `-H "Transfer-Encoding: chunked"` it announces one
    with a GET, and sends none: that is not waited for, as no app would.
    """
    began, safe = time.monotonic(), environ["REQUEST_METHOD"] in SAFE
    patience = min(_PAUSE_SECONDS, settings.upload_timeout) if safe else settings.upload_timeout
    try:
        upload = Upload(environ, settings.max_request_body)
        if not upload.empty:
            with impatient(environ, patience):
                upload.discard()
    except UploadStalled:
        if not safe:
            raise
    except (UploadBroken, BodyTooLarge):
        pass  # the server closes the connection by itself
    return time.monotonic() - began


def find(runtime: Runtime, pending: Pending, waiter: Waiter, deadline: float) -> Snapshot | Tombstone | None:
    """Return the call, and have it wake this process from now on; None if Redis is away until the deadline.

    Raises:
        CallUnknown: there is no such call, or not with this token on this path.
        ClientGone: the client disconnected while Redis was away.
    """

    def look() -> Snapshot | Tombstone:
        with within(deadline - time.monotonic()), runtime.turn():
            runtime.listener.check()
            found = _authorize(runtime.calls, pending)
            if isinstance(found, Snapshot) and not found.ended:
                runtime.calls.join(pending.call_id, runtime.listener.inbox)
        return found

    def failed(_: Exception) -> None:
        if waiter.gone:
            raise ClientGone from None

    try:
        return retry(
            look,
            UNAVAILABLE,
            pause=RETRY_SECONDS,
            deadline=deadline,
            stopped=lambda: runtime.listener.draining,
            failed=failed,
            sleep=waiter.wait,
        )
    except UNAVAILABLE:
        return None


def _authorize(calls: Calls, pending: Pending) -> Snapshot | Tombstone:
    found = calls.authorize(pending.call_id, pending.token, pending.path) if pending.call_id else None
    if found is None or not found.origin.asked:
        raise CallUnknown("there is no such call, or not for this URL")
    return found


@dataclass(frozen=True, slots=True)
class _Request:
    """A request on a call's result URL: it asks for the call's response, or for something new."""

    asked: Asked
    call: Asked
    pending: Pending
    exchange: Exchange

    def is_new(self, found: Snapshot | Tombstone) -> bool:
        """Return whether it asks for something else than the call's own request, or wants to run it again."""
        if not self.asked.is_for(self.call):
            return True
        # With `wait_for_response=False` this URL is the only one: reloading it must not start a new call.
        if not self.call.waits or found.delivered_ms is None:
            return False
        if self.call.method in SAFE and isinstance(found, Snapshot) and _has_failed(found):
            return True  # its client was told that it failed, or got a part of it: this is a new try
        return wants_another_run(self.exchange.environ, self.pending.call_id) or self.asked.other_terms(
            self.call
        )

    def takes(self, snapshot: Snapshot) -> bool:
        """Return whether the recorded response answers this request."""
        head = snapshot.head
        return head is None or self.asked.takes(head.status, head.headers, self.call)

    @property
    def goes_on(self) -> bool:
        """Whether it asks for the rest of a response: behind a redirect wget would ask for the whole."""
        return is_resumed_download(self.exchange.environ) or bool(self.asked.range and not self.call.range)

    @property
    def may_continue(self) -> bool:
        """Whether it asks for the rest of a response, which the app may be asked for as well."""
        return bool(self.asked.range) and self.call.waits and self.call.method in SAFE

    def anew(self, *, had_terms: bool = False) -> Iterable[bytes]:
        """Redirect to the app's own URL; `had_terms`: the call's request had conditions or a range."""
        clean_url, start_response = self.pending.clean_url, self.exchange.start_response
        if self.exchange.method not in SAFE:
            # A form without `action` posts to the address in the address bar, which is the result URL.
            return answers.redirect(start_response, "307 Temporary Redirect", clean_url)
        if self.goes_on:
            raise RunAnew
        # A client with a cached copy of the clean URL would send the same condition again, endlessly.
        lost_terms = had_terms and not self.asked.has_terms
        url = urls.anew_url(clean_url) if lost_terms else clean_url
        return answers.redirect(start_response, "303 See Other", url)


def _has_failed(found: Snapshot) -> bool:
    return found.outcome not in _FINE or (found.head is not None and found.head.status.startswith("5"))


def _gone(found: Snapshot | Tombstone, pending: Pending) -> AlreadyDelivered:
    text = "this result was delivered, and is not kept any longer"
    return AlreadyDelivered(text, found.delivered_ms or 0, pending.clean_url)
