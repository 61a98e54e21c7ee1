"""Idempotency keys: a repeated request joins the first one's call instead of running again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

from wsgi_timeout.errors import CallRefused, CallUnknown, IdempotencyKeyReused
from wsgi_timeout.front import redirects, replay
from wsgi_timeout.front.delivery import Delivery
from wsgi_timeout.front.exchange import Exchange
from wsgi_timeout.front.result_urls import find
from wsgi_timeout.front.wait import ClientGone, call_state, wait
from wsgi_timeout.http.asked import SAFE, Asked
from wsgi_timeout.http.cors import adding
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.http.request_body import Upload, impatient
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys
from wsgi_timeout.store.claims import Claimed, Claims
from wsgi_timeout.store.record import Snapshot
from wsgi_timeout.store.redis_errors import UNAVAILABLE, unavailable_is_refusal

#: Seconds between two checks whether the first request's body has arrived.
_LOOK_SECONDS = 0.1


def key_of(environ: Mapping[str, Any], settings: Settings, path: str) -> bytes:
    """Return a digest of a request's key, its URL and its caller; empty if it has no key.

    The caller is told by `Authorization`, else by `Cookie`: two callers may use the same key.
    """
    if not settings.idempotency_headers or environ["REQUEST_METHOD"] in SAFE:
        return b""
    names = (name.strip().upper().replace("-", "_") for name in settings.idempotency_headers.split(","))
    given = next((value for name in names if (value := environ.get(f"HTTP_{name}", ""))), "")
    if not given:
        return b""
    caller = environ.get("HTTP_AUTHORIZATION") or environ.get("HTTP_COOKIE", "")
    request = (environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""))
    return sha256("\n".join((given, caller, *request)).encode("utf-8", "surrogatepass")).digest()[:16]


@dataclass(frozen=True, slots=True)
class Key:
    """The idempotency key of one request."""

    exchange: Exchange
    key: bytes
    pending: Pending

    def first(self) -> Claimed | None:
        """Claim the key; return the call of an earlier request with it, None if this request is the first.

        While the first request's body is still arriving, a repeat waits, its own body unread: if the first
        client disconnects, its request was never accepted, and the repeat takes its place.

        Raises:
            CallRefused: the wait is over, and the first body has not arrived.
            ClientGone: the client has disconnected.
            TooManyWaiting: there is no place to wait.
        """
        claimed = self._take()
        if claimed is None or claimed.body is not None:
            return claimed
        runtime = self.exchange.runtime
        deadline = time.monotonic() + self.exchange.settings.wait_seconds
        with runtime.seat(self.pending.call_id, self.exchange.environ, hop=0) as seat:
            seat.waiter.before_acceptance()
            while claimed is not None and claimed.body is None:
                if seat.waiter.gone:
                    raise ClientGone
                if runtime.listener.draining or time.monotonic() > deadline:
                    raise CallRefused("the first request with this key is still coming in")
                seat.waiter.wait(_LOOK_SECONDS)
                seat.waiter.reset()
                claimed = self._take()
        return claimed

    def _take(self) -> Claimed | None:
        runtime = self.exchange.runtime
        with runtime.turns, unavailable_is_refusal():
            claims = Claims(runtime.calls)
            claimed = claims.take(self.key, self.pending.call_id, self.pending.token)
            if claimed is None or claimed.body is None or self._is_kept(claimed):
                return claimed
            # Its result has expired: this is a new request.
            claims.release(self.key)
            return claims.take(self.key, self.pending.call_id, self.pending.token)

    def _is_kept(self, claimed: Claimed) -> bool:
        calls, path = self.exchange.runtime.calls, self.pending.path
        return isinstance(calls.authorize(claimed.call_id, claimed.token, path), Snapshot)

    @contextmanager
    def held(self, upload: Upload) -> Iterator[None]:
        """Keep the claim if the `with` block accepts the call; otherwise release it."""
        runtime, settings = self.exchange.runtime, self.exchange.settings
        claims = Claims(runtime.calls)
        try:
            with runtime.uploads.hold(keys.claim(runtime.calls.name, self.key.hex())):
                yield
        except BaseException:
            with suppress(*UNAVAILABLE):
                claims.release(self.key)
            raise
        ttl = settings.max_attempts * (settings.queue_ttl + settings.timeout) + settings.result_ttl
        seal = partial(claims.seal, self.key, upload.digest, ttl, durable=settings.durable)
        try:
            seal()
        except UNAVAILABLE:
            runtime.uploads.close_later(seal, ttl)

    def join(self, claimed: Claimed, upload: Upload) -> Iterable[bytes]:
        """Answer a repeated request with the response of the first one's call."""
        exchange, runtime = self.exchange, self.exchange.runtime
        with impatient(exchange.environ, exchange.settings.upload_timeout):
            upload.discard()
        if claimed.body and claimed.body != upload.digest:
            raise IdempotencyKeyReused("the key of this request was sent before, with another body")
        start_response = adding(exchange.start_response, [("Idempotent-Replayed", "true")])
        exchange = replace(exchange, start_response=start_response)
        pending = replace(self.pending, call_id=claimed.call_id, token=claimed.token, hop=1)
        with runtime.seat(pending.call_id, exchange.environ, hop=1) as seat:
            deadline = time.monotonic() + exchange.settings.wait_seconds
            found = find(runtime, pending, seat.waiter, deadline)
            if found is not None and not isinstance(found, Snapshot):
                raise CallUnknown("the result of this key's request is not kept any more")
            if found is not None and not Asked.unpack(found.origin.asked).waits:
                return redirects.accepted(exchange, replace(pending, hop=0))
            ready = wait(runtime, seat, deadline - time.monotonic(), look_first=True) if found else None
            if found is None or ready is None:
                seat.keep_place()
                return redirects.to_result_url(exchange, pending, partial(call_state, runtime, seat))
            pending = replace(pending, origin=found.origin)
            delivery = Delivery.of(exchange, pending, ready.snapshot)
            return replay.answer(ready, delivery, seat, start_response)
