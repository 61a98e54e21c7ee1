"""Waiting for a call, and answering with what became of it: on the first request and on its result URL."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsgi_timeout.errors import (
    BodyTooLarge,
    CallCancelled,
    CallFailed,
    CallRefused,
    CallTimedOut,
    CallUnknown,
    HandlerRaised,
    TooManyWaiting,
    UploadBroken,
    UploadStalled,
    WorkerLost,
)
from wsgi_timeout.front import replay, status_url
from wsgi_timeout.front.process import Runtime, Seat
from wsgi_timeout.http import answers, urls
from wsgi_timeout.http.request_body import Upload, impatient
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.calls import Calls, Outcome, Snapshot, Tombstone
from wsgi_timeout.store.connection import AWAY, REFUSING, unavailable_is_refusal
from wsgi_timeout.store.streams import StreamReader
from wsgi_timeout.watching.listener import Listener, Waiter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Seconds between two tries while Redis is away.
_RETRY_SECONDS = 0.5
#: Seconds that a result URL is held where none can wait any more.
_FULL_SECONDS = 1.0

_FAILURES: dict[Outcome, type[CallFailed]] = {
    Outcome.RAISED: HandlerRaised,
    Outcome.LOST: WorkerLost,
    Outcome.TIMEOUT: CallTimedOut,
    Outcome.CANCELLED: CallCancelled,
}


class ClientGone(Exception):
    """The client closed its connection while it waited."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A call that a request waits for."""

    call_id: str
    token: str
    path: str
    #: The request's own URL without our parameters.
    clean_url: str
    #: Redirects so far; 0: its result URL was never given out.
    hop: int

    @property
    def next_url(self) -> str:
        return urls.result_url(self.clean_url, self.call_id, self.token, self.hop + 1)


@dataclass(frozen=True, slots=True)
class Ready:
    """A call whose response can begin: its end, or the first bytes of its stream."""

    snapshot: Snapshot
    reader: StreamReader | None
    first: list[bytes]


def wait(
    calls: Calls, listener: Listener, call_id: str, waiter: Waiter, seconds: float, *, look_first: bool
) -> Ready | None:
    """Block until the call's response can begin; None when time is up, or the process stops.

    A Redis that is away only takes time. Raises `ClientGone`, `CallUnknown`.
    """
    deadline = time.monotonic() + seconds
    while True:
        if waiter.carried:
            return Ready(Snapshot.carried(waiter.carried), None, [])
        if look_first and not listener.away:
            waiter.reset()
            ready = _look(calls, listener, call_id, waiter)
            if ready:
                return ready
        look_first = True
        remaining = deadline - time.monotonic()
        if remaining <= 0 or listener.draining:
            return None
        if waiter.gone:
            raise ClientGone
        waiter.wait(remaining)
        if listener.away:
            waiter.reset()


def _look(calls: Calls, listener: Listener, call_id: str, waiter: Waiter) -> Ready | None:
    try:
        snapshot = calls.look(call_id)
        if snapshot.state is None:
            raise CallUnknown("this call is not known (any more)")
        in_stream = snapshot.head is not None and snapshot.body is None
        if snapshot.ended and not (in_stream and snapshot.outcome in {Outcome.DONE, Outcome.BROKEN}):
            return Ready(snapshot, None, [])
        if not in_stream:
            return None
        # Its first byte binds the response to this attempt; without it another run may yet come.
        reader = StreamReader(calls.scripts, call_id, listener.inbox, snapshot.attempt)
        first = reader.poll()
    except (*AWAY, *REFUSING):
        waiter.wait(_RETRY_SECONDS)
        return None
    if reader.missing and snapshot.ended:
        raise CallUnknown("the body of this result is not kept any more")
    return Ready(snapshot, reader, first) if first or reader.end else None


def answer(
    runtime: Runtime,
    pending: Pending,
    ready: Ready,
    seat: Seat,
    start_response: StartResponse,
    *,
    method: str,
    grace: float,
) -> Iterable[bytes]:
    """Answer with the response, or with the error that the call ended in.

    The seat is given up when the response is closed.
    """
    snapshot = ready.snapshot
    known = pending.hop > 0

    def deliver() -> None:
        if known:
            runtime.calls.deliver(pending.call_id, pending.token, pending.path, snapshot.attempt, grace)
        else:
            runtime.listener.unlink_soon(*runtime.calls.kept(pending.call_id, snapshot.attempt))

    if snapshot.outcome not in {None, Outcome.DONE, Outcome.BROKEN}:
        if not known:
            deliver()
        failure = _FAILURES.get(snapshot.outcome or Outcome.UNREAD, CallFailed)
        raise failure(snapshot.detail)
    chunks = replay.begin(
        snapshot, ready.reader, ready.first, seat.waiter, start_response, method=method, on_result_url=known
    )
    delivery = deliver if method != "HEAD" or not known else None
    return replay.Replay(chunks, ready.reader, delivery, seat.pass_on(), again=known)


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
    ) -> Iterable[bytes]:
        """Answer a request with our parameter: it never reaches the app."""
        self._drain(environ)
        method = environ["REQUEST_METHOD"]
        path = urls.local_path(environ)
        clean_url = urls.clean_url(environ, self._settings.trusted_proxies)
        pending = Pending(reference.call_id, reference.token, path, clean_url, max(1, reference.hop))
        if "prefetch" in environ.get("HTTP_SEC_PURPOSE", environ.get("HTTP_PURPOSE", "")):
            raise CallRefused("a prefetch must not use up a result")
        if reference.kind == "status":
            return self._status(runtime, pending, method, environ, start_response)
        return self._result(runtime, pending, method, environ, start_response)

    def _drain(self, environ: dict[str, Any]) -> None:
        # `curl -X POST -L` sends its body on every hop.
        try:
            upload = Upload(environ, self._settings.max_request_body)
            if not upload.empty:
                with impatient(environ, self._settings.upload_timeout):
                    upload.discard()
        except UploadStalled:
            raise
        except (UploadBroken, BodyTooLarge):
            pass  # the server closes such a connection by itself

    def _status(
        self,
        runtime: Runtime,
        pending: Pending,
        method: str,
        environ: dict[str, Any],
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        calls, call_id = runtime.calls, pending.call_id
        with unavailable_is_refusal():
            found = _authorize(calls, pending)
            if isinstance(found, Tombstone):
                return answers.gone(environ, start_response, found.delivered_ms, pending.clean_url)
            if method in {"POST", "DELETE"}:
                return status_url.cancel(calls, call_id, self._settings.result_ttl, start_response)
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
        try:
            seated = runtime.seat(pending.call_id, environ, hop=pending.hop)
        except TooManyWaiting:
            # Its call was accepted: it must not end in a 503, and comes again. Not at once, since
            # clients follow so many redirects only.
            if not runtime.listener.draining:
                time.sleep(_FULL_SECONDS)
            return answers.redirect(start_response, "303 See Other", pending.next_url)
        with seated as seat:
            deadline = time.monotonic() + self._settings.wait_seconds
            found = self._find(runtime, pending, seat.waiter, deadline)
            if isinstance(found, Tombstone) or (found and found.delivered_ms and method not in _SAFE):
                return _after_delivery(found, pending, method, environ, start_response)
            ready = None
            # A response that came with a wake may lie here already, for whoever named the id: without a
            # look at the token nobody waits for it.
            if found is not None:
                seconds = deadline - time.monotonic()
                calls, call_id = runtime.calls, pending.call_id
                ready = wait(calls, runtime.listener, call_id, seat.waiter, seconds, look_first=True)
            if ready is None:
                seat.keep_place()
                return answers.redirect(start_response, "303 See Other", pending.next_url)
            grace = self._settings.delivery_grace
            return answer(runtime, pending, ready, seat, start_response, method=method, grace=grace)

    @staticmethod
    def _find(
        runtime: Runtime, pending: Pending, waiter: Waiter, deadline: float
    ) -> Snapshot | Tombstone | None:
        """Return the call, woken from now on; None if Redis stayed away: nobody knows then whose it is."""
        while True:
            try:
                with runtime.turns:
                    runtime.listener.check()
                    found = _authorize(runtime.calls, pending)
                    if isinstance(found, Snapshot) and not found.ended:
                        runtime.calls.join(pending.call_id, runtime.listener.inbox)
            except (*AWAY, *REFUSING):
                if time.monotonic() >= deadline or runtime.listener.draining:
                    return None
                if waiter.gone:
                    raise ClientGone from None
                waiter.wait(_RETRY_SECONDS)
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
    environ: dict[str, Any],
    start_response: StartResponse,
) -> Iterable[bytes]:
    if method not in _SAFE:
        # A form without `action` posts to the address that the browser shows, which is this one.
        return answers.redirect(start_response, "307 Temporary Redirect", pending.clean_url)
    return answers.gone(environ, start_response, found.delivered_ms or 0, pending.clean_url)
