"""A request that becomes a call: it is sent, waited for, and answered with its response or a redirect."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from wsgi_timeout.current import CALL_ID_KEY
from wsgi_timeout.errors import UpgradeUnsupported
from wsgi_timeout.front import event_stream, idempotency, redirects
from wsgi_timeout.front.delivery import Delivery
from wsgi_timeout.front.places import Seat
from wsgi_timeout.front.process import Runtime
from wsgi_timeout.front.submit import Submission
from wsgi_timeout.front.told_early import ToldEarly
from wsgi_timeout.front.wait import ClientGone, Ready, call_state, wait
from wsgi_timeout.front.waiting_page import Visit
from wsgi_timeout.http import prefer, urls
from wsgi_timeout.http.asked import SAFE, Asked
from wsgi_timeout.http.environ import without_conditions
from wsgi_timeout.http.mounts import Mounts
from wsgi_timeout.http.navigation import is_resumed_download
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.http.request_body import Upload
from wsgi_timeout.metrics import ROUTE_KEY
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.record import new_id, new_token
from wsgi_timeout.store.redis_errors import UNAVAILABLE

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

#: Seconds after which one of our own clients is told its call's URLs, to show progress or to cancel.
_KNOWN_SECONDS = 2.0


class NewCalls:
    """Runs requests as calls of a target's WSGI app `entry`, or of the web function that `mounts` finds."""

    def __init__(self, entry: str, mounts: Mounts | None) -> None:
        self._entry = entry
        self._mounts = mounts

    def accept(
        self,
        runtime: Runtime,
        settings: Settings,
        environ: dict[str, Any],
        start_response: StartResponse,
        visit: Visit | None,
        *,
        alone: bool = False,
    ) -> Iterable[bytes]:
        """Have a request run as a call; raises `FirstWaitNoted` if it may join one, unless it is `alone`."""
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            raise UpgradeUnsupported("a WebSocket cannot run as a job: leave its route out with `--except`")
        runtime.check_workers()
        entry, served = self._entry, environ
        if mounts := self._mounts or runtime.mounts:
            entry, mount, environ = mounts.find(environ)
            settings = mount.apply(settings)
            runtime.check_label(entry)
        settings, start_response, waits_first = prefer.apply(environ, settings, start_response)
        if environ["REQUEST_METHOD"] in SAFE and (
            not settings.wait_for_response or urls.is_anew(environ.get("QUERY_STRING", ""))
        ):
            # The response is fetched at a result URL, of which no client has a cached copy.
            environ = without_conditions(environ)
        path = urls.canonical_path(environ)
        key_bytes = idempotency.key_of(environ, settings, path)
        upload = Upload(environ, settings.max_request_body, hashed=bool(key_bytes))
        pending = _pending(environ, settings, path, keyed=bool(key_bytes))
        served[CALL_ID_KEY] = pending.call_id
        key = idempotency.Key(runtime, settings, key_bytes, pending) if key_bytes else None
        if key and (claimed := key.first(environ)):
            return key.join(claimed, upload, environ, start_response)
        with runtime.seat(pending.call_id, environ, hop=pending.hop) as seat:
            with key.held(upload) if key else nullcontext():
                untold = 0.0 if key else _untold_seconds(environ, settings, visit)
                woken = settings.replace(wait_for_response=True) if waits_first else settings
                sent = Submission(runtime, woken, entry, environ, pending, seat.waiter, untold)
                sent.client_may_return = visit is not None or not untold
                if visit and settings.wait_for_response and not (key or alone):
                    sent.first_wait = visit.note()
                sent.send(upload)
                del sent, upload  # thousands may wait
            if settings.wait_for_response:
                return _respond(runtime, settings, pending, seat, environ, start_response, visit, key)
            if waits_first and (ready := _wait(runtime, seat, waits_first, keyed=key is not None)):
                return _deliver(runtime, settings, pending, seat, environ, start_response, ready)
        if visit is not None:
            return visit.accepted(pending)
        return redirects.accepted(settings, pending, environ, start_response)


def _pending(environ: dict[str, Any], settings: Settings, path: str, *, keyed: bool) -> Pending:
    """Return a new call for a request, of which its client knows nothing yet."""
    kept = settings.result_ttl if keyed else 0.0
    asked = Asked.by(environ, waits=settings.wait_for_response, kept_seconds=kept).pack()
    clean_url, route = urls.clean_url(environ, settings.trusted_proxies), environ[ROUTE_KEY]
    return Pending(new_id(), new_token(), path, clean_url, hop=0, asked=asked, route=route)


def _first_wait(environ: dict[str, Any], settings: Settings, visit: Visit | None) -> float:
    """Return after how many seconds a first request is told its result URL."""
    seconds = settings.wait_seconds if visit is None else visit.wait_seconds
    return min(seconds, _KNOWN_SECONDS) if redirects.asks_for_202(environ) else seconds


def _untold_seconds(environ: dict[str, Any], settings: Settings, visit: Visit | None) -> float:
    """Return for how many seconds nobody is told the result URL; with a margin for clocks that differ."""
    kept = settings.event_streams == "resumable" or is_resumed_download(environ)
    if kept or not settings.wait_for_response:
        return 0.0
    return _first_wait(environ, settings, visit) / 2


def _wait(runtime: Runtime, seat: Seat, seconds: float, *, keyed: bool) -> Ready | None:
    """Wait for a call whose URL nobody was told: once its client disconnects, nobody can ask for it.

    `keyed`: the request has an idempotency key, by which a repeat of it still can.
    """
    try:
        return wait(runtime, seat, seconds, look_first=False)
    except ClientGone:
        if not keyed:
            with suppress(*UNAVAILABLE):  # its result is then kept for `result_ttl`
                runtime.calls.abandon(seat.waiter.call_id)
        raise


def _respond(
    runtime: Runtime,
    settings: Settings,
    pending: Pending,
    seat: Seat,
    environ: dict[str, Any],
    start_response: StartResponse,
    visit: Visit | None,
    key: idempotency.Key | None,
) -> Iterable[bytes]:
    """Answer a first request with its response, or with a redirect when its wait is over."""
    seconds = _first_wait(environ, settings, visit)
    deadline = time.monotonic() + settings.wait_seconds
    if visit is not None and environ["REQUEST_METHOD"] == "GET":
        ready = visit.first_waits.wait(environ, pending, seat, seconds)
    else:
        ready = _wait(runtime, seat, seconds, keyed=key is not None)
    if ready is None:
        state = partial(call_state, runtime, seat)
        told = (
            visit.redirect(pending)
            if visit is not None
            else redirects.to_result_url(pending, environ, settings, start_response, state)
        )
        if visit is None:
            seat.keep_place()
        return ToldEarly(told, runtime, pending, settings) if runtime.listener.draining else told
    return _deliver(runtime, settings, pending, seat, environ, start_response, ready, deadline)


def _deliver(
    runtime: Runtime,
    settings: Settings,
    pending: Pending,
    seat: Seat,
    environ: dict[str, Any],
    start_response: StartResponse,
    ready: Ready,
    deadline: float = 0.0,
) -> Iterable[bytes]:
    method, grace = environ["REQUEST_METHOD"], settings.delivery_grace
    delivery = Delivery(runtime, pending, ready.snapshot, method, grace)
    return event_stream.answer(ready, delivery, seat, start_response, environ, settings, deadline)
