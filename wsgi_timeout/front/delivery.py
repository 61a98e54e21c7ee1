"""Delivery: what is kept of a call after its response was sent, or broke off."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass

from wsgi_timeout import metrics
from wsgi_timeout.compat import Self
from wsgi_timeout.current import CALL_ID_KEY
from wsgi_timeout.front.call_line import CallLine, Sent
from wsgi_timeout.front.exchange import Exchange
from wsgi_timeout.front.process import Runtime
from wsgi_timeout.http.asked import Asked
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.store.record import Snapshot
from wsgi_timeout.store.redis_errors import ANY

log = logging.getLogger("wsgi_timeout")


@dataclass(frozen=True, slots=True)
class Delivery:
    """Sends one call's response to one client, and records that it was sent.

    A call whose result URL was never given out is deleted, however the response ended: nobody can ask
    for it again. Any other call counts as delivered once its body was sent in full, and is kept for the
    grace period. So does one that failed, once its client was told: asking again may succeed.
    """

    runtime: Runtime
    pending: Pending
    snapshot: Snapshot
    #: The request's method: a HEAD consumes nothing.
    method: str
    grace_seconds: float

    @classmethod
    def of(cls, exchange: Exchange, pending: Pending, snapshot: Snapshot) -> Self:
        """Return the delivery of a call's response to one request, whose access-log line names the call."""
        exchange.environ[CALL_ID_KEY] = pending.call_id
        return cls(exchange.runtime, pending, snapshot, exchange.method, exchange.settings.delivery_grace)

    def finish(self, sent: Sent, *, broke: bool = False, ended_ms: int = 0) -> None:
        """Log and record how the response ended.

        Args:
            sent: what the client got.
            broke: the response itself broke off: it is not the client that left.
            ended_ms: when the attempt ended whose response was streamed; 0: not known.
        """
        CallLine(self.pending, self.snapshot, self.method).write(sent, broke=broke, ended_ms=ended_ms)
        if sent is Sent.WHOLE:
            metrics.observe("hops", self.pending.hop, self.runtime.calls.name, self.pending.origin.route)
        self.settle(sent, failed=broke or sent is Sent.ERROR)

    def settle(self, sent: Sent = Sent.WHOLE, *, failed: bool = False) -> None:
        """Record that the client got its response; `failed`: it was told that the app failed."""
        asked = self.pending.origin.asked
        call = Asked.unpack(asked) if asked else None
        kept_seconds = call.kept_seconds if call else 0.0
        whole = sent in {Sent.WHOLE, Sent.NOTHING}
        over = whole or (failed and call is not None and call.waits and not kept_seconds)
        if self.pending.hop == 0 and not kept_seconds:
            self._forget(whole=whole)
        elif over and self.method != "HEAD":
            self._deliver(max(self.grace_seconds, kept_seconds))

    def _forget(self, *, whole: bool) -> None:
        """Delete the call, which also stops a handler that still writes its response."""
        calls, call_id = self.runtime.calls, self.pending.call_id
        if not whole and not self.snapshot.ended:
            # Now, since a writer may be waiting for room; the keys are deleted in a later batch.
            with suppress(*ANY):
                calls.abandon(call_id)
        self.runtime.listener.forget_soon(calls.name, call_id, self.snapshot.attempt)

    def _deliver(self, grace_seconds: float) -> None:
        pending = self.pending
        try:
            self.runtime.calls.deliver(
                pending.call_id,
                pending.token,
                pending.path,
                self.snapshot.attempt,
                grace_seconds,
                pending.origin.asked,
                pending.hop,
            )
        except ANY as error:
            # The result stays until its TTL: sending it twice is better than losing it.
            log.warning("could not note a delivery: %s", error)
