"""A request that becomes a call: it is sent, waited for, and answered with its response or a redirect."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial

from wsgi_timeout.current import CALL_ID_KEY
from wsgi_timeout.errors import UpgradeUnsupported
from wsgi_timeout.front import event_stream, idempotency, redirects
from wsgi_timeout.front.call_line import CallLine, Sent
from wsgi_timeout.front.delivery import Delivery
from wsgi_timeout.front.exchange import Exchange
from wsgi_timeout.front.places import Seat
from wsgi_timeout.front.submit import Submission
from wsgi_timeout.front.told_early import ToldEarly
from wsgi_timeout.front.turns import Turn
from wsgi_timeout.front.wait import ClientGone, Ready, call_state, wait
from wsgi_timeout.front.waiting_page import Visit
from wsgi_timeout.http import prefer, urls
from wsgi_timeout.http.asked import SAFE, Asked
from wsgi_timeout.http.environ import request_id, without_conditions
from wsgi_timeout.http.mounts import Mounts
from wsgi_timeout.http.navigation import is_resumed_download
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.http.request_body import Upload
from wsgi_timeout.metrics import ROUTE_KEY
from wsgi_timeout.store.record import Origin, new_names
from wsgi_timeout.store.redis_errors import UNAVAILABLE

#: Seconds after which one of our own clients is told its call's URLs, to show progress or to cancel.
_KNOWN_SECONDS = 2.0


class NewCalls:
    """Runs requests as calls of a target's WSGI app `entry`, or of the web function that `mounts` finds."""

    def __init__(self, entry: str, mounts: Mounts | None) -> None:
        self._entry = entry
        self._mounts = mounts

    def accept(self, exchange: Exchange, visit: Visit | None, *, alone: bool = False) -> Iterable[bytes]:
        """Have a request run as a call; raises `FirstWaitNoted` if it may join one, unless it is `alone`."""
        served = exchange.environ
        if served.get("HTTP_UPGRADE", "").lower() == "websocket":
            raise UpgradeUnsupported("a WebSocket cannot run as a job: leave its route out with `--except`")
        exchange.runtime.check_workers()
        entry, exchange, waits_first = self._entered(exchange)
        settings, environ = exchange.settings, exchange.environ
        path = urls.canonical_path(environ)
        key_bytes = idempotency.key_of(environ, settings, path)
        upload = Upload(environ, settings.max_request_body, hashed=bool(key_bytes))
        pending = _pending(exchange, path, keyed=bool(key_bytes))
        served[CALL_ID_KEY] = pending.call_id
        key = idempotency.Key(exchange, key_bytes, pending) if key_bytes else None
        if key and (claimed := key.first()):
            return key.join(claimed, upload)
        with exchange.runtime.seat(pending.call_id, environ, hop=pending.hop) as seat:
            # In a burst the listener may look for the call before it was sent: no record means nothing yet.
            seat.waiter.before_acceptance()
            with key.held(upload) if key else nullcontext():
                # Before a 202 too the call's end is to wake this process.
                woken = settings.replace(wait_for_response=True) if waits_first else settings
                untold = 0.0 if key else _untold_seconds(exchange, visit)
                may_join = visit if settings.wait_for_response and not (key or alone) else None
                turn = Turn(exchange.runtime.turns)
                if upload.empty and not (key or settings.durable):
                    turn.take()  # thousands may stand in line here
                try:
                    Submission(
                        replace(exchange, settings=woken),
                        entry,
                        pending,
                        seat.waiter,
                        turn,
                        untold_seconds=untold,
                        client_may_return=visit is not None or not untold,
                        first_wait=may_join.note() if may_join else "",
                    ).send(upload)
                finally:
                    turn.give_back()
                del upload  # thousands may wait
            if settings.wait_for_response:
                return _respond(exchange, pending, seat, visit, key)
            if waits_first and (ready := _wait(exchange, pending, seat, waits_first, keyed=key is not None)):
                return _deliver(exchange, pending, seat, ready)
        return visit.accepted(pending) if visit is not None else redirects.accepted(exchange, pending)

    def _entered(self, exchange: Exchange) -> tuple[str, Exchange, float]:
        """Return the entry that a request runs at, and the request as the app there is to see it.

        Also for how many seconds its call is waited for before a 202, see `prefer`.
        """
        runtime, entry = exchange.runtime, self._entry
        if mounts := self._mounts or runtime.mounts:
            entry, mount, environ = mounts.find(exchange.environ)
            exchange = replace(exchange, environ=environ, settings=mount.apply(exchange.settings))
            runtime.check_label(entry)
        settings, start_response, waits_first = prefer.apply(
            exchange.environ, exchange.settings, exchange.start_response
        )
        if settings is not exchange.settings:
            exchange = replace(exchange, settings=settings, start_response=start_response)
        anew = urls.is_anew(exchange.environ.get("QUERY_STRING", ""))
        if exchange.method in SAFE and (anew or not settings.wait_for_response):
            # The response is fetched at a result URL, of which no client has a cached copy.
            exchange = replace(exchange, environ=without_conditions(exchange.environ))
        return entry, exchange, waits_first


def _pending(exchange: Exchange, path: str, *, keyed: bool) -> Pending:
    """Return a new call for a request, of which its client knows nothing yet."""
    settings, environ = exchange.settings, exchange.environ
    kept = settings.result_ttl if keyed else 0.0
    asked = Asked.by(environ, waits=settings.wait_for_response, kept_seconds=kept).pack()
    origin = Origin(asked, environ[ROUTE_KEY], request_id(environ))
    call_id, token = new_names()
    return Pending(call_id, token, path, exchange.own_url(), 0, origin)


def _first_wait(exchange: Exchange, visit: Visit | None) -> float:
    """Return after how many seconds a first request is told its result URL."""
    seconds = exchange.settings.wait_seconds if visit is None else visit.wait_seconds
    return min(seconds, _KNOWN_SECONDS) if redirects.asks_for_202(exchange.environ) else seconds


def _untold_seconds(exchange: Exchange, visit: Visit | None) -> float:
    """Return for how many seconds nobody is told the result URL; with a margin for clocks that differ."""
    kept = exchange.settings.event_streams == "resumable" or is_resumed_download(exchange.environ)
    if kept or not exchange.settings.wait_for_response:
        return 0.0
    return _first_wait(exchange, visit) / 2


def _wait(exchange: Exchange, pending: Pending, seat: Seat, seconds: float, *, keyed: bool) -> Ready | None:
    """Wait for a call whose URL nobody was told: once its client disconnects, nobody can ask for it.

    `keyed`: the request has an idempotency key, by which a repeat of it still can.
    """
    try:
        return wait(exchange.runtime, seat, seconds, look_first=False)
    except ClientGone:
        if not keyed:
            with suppress(*UNAVAILABLE):  # its result is then kept for `result_ttl`
                exchange.runtime.calls.abandon(pending.call_id)
            CallLine(pending, None, exchange.method).write(Sent.NOTHING)
        raise


def _respond(
    exchange: Exchange, pending: Pending, seat: Seat, visit: Visit | None, key: idempotency.Key | None
) -> Iterable[bytes]:
    """Answer a first request with its response, or with a redirect when its wait is over."""
    runtime, settings = exchange.runtime, exchange.settings
    seconds = _first_wait(exchange, visit)
    deadline = time.monotonic() + settings.wait_seconds
    if visit is not None and exchange.method == "GET":
        ready = visit.first_waits.wait(exchange.environ, pending, seat, seconds)
    else:
        ready = _wait(exchange, pending, seat, seconds, keyed=key is not None)
    if ready is None:
        if visit is not None:
            told = visit.redirect(pending)
        else:
            told = redirects.to_result_url(exchange, pending, partial(call_state, runtime, seat))
            seat.keep_place()
        return ToldEarly(told, runtime, pending, settings) if runtime.listener.draining else told
    return _deliver(exchange, pending, seat, ready, deadline)


def _deliver(
    exchange: Exchange, pending: Pending, seat: Seat, ready: Ready, deadline: float = 0.0
) -> Iterable[bytes]:
    delivery = Delivery.of(exchange, pending, ready.snapshot)
    return event_stream.answer(exchange, ready, delivery, seat, deadline)
