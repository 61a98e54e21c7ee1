"""The waiting page, which stands at the app's own address, and the requests that lead there and back.

    GET /report      waits 5 s, then 303 to the result URL, setting the cookie `wait`
    GET result URL   303 to /report, setting the cookie `give`; without cookies the page is shown here
    GET /report      the waiting page of the call in `give`; `give` is deleted
    GET result URL   sent by the page once the response is there: 303 to /report, setting `give`
    GET /report      the response of the call in `give`; `give` is deleted

Two tabs of one address get one response each: a page asks for the result URL of its own call, and tabs are
redirected one at a time. Opening the address once more joins the call in the cookie `wait`, unless its
response was delivered: F5 then runs the app anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from wsgi_timeout.errors import CallFailed, CallUnknown, HandlerRaised, TooManyWaiting
from wsgi_timeout.front import error_pages, handover, redirects, replay
from wsgi_timeout.front.browser_answers import BrowserAnswers
from wsgi_timeout.front.delivery import Delivery
from wsgi_timeout.front.first_waits import FirstWaits
from wsgi_timeout.front.places import Seat
from wsgi_timeout.front.wait import Ready, wait
from wsgi_timeout.http import answers
from wsgi_timeout.http.asked import Asked
from wsgi_timeout.http.cookies import Ticket
from wsgi_timeout.http.navigation import has_body, is_hard_reload
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.store.record import Outcome, Snapshot, now_ms
from wsgi_timeout.store.redis_errors import UNAVAILABLE
from wsgi_timeout.store.time_limit import within

#: Seconds for which a result URL blocks a browser without JavaScript, whose page reloads itself.
_HOLD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Visit(BrowserAnswers):
    """One navigation of a person's browser."""

    first_waits: FirstWaits

    @property
    def wait_seconds(self) -> float:
        """For how many seconds the first request may wait before the page is shown."""
        page_after = 0.0 if self.settings.waiting_page == "at-once" else self.settings.page_after
        return min(self.settings.wait_seconds, page_after)

    # -- the first request

    def note(self) -> str:
        """Return the key of the note by which a reload finds this call; "": a reload may not join it."""
        if self.environ["REQUEST_METHOD"] != "GET" or is_hard_reload(self.environ) or has_body(self.environ):
            return ""
        return self.first_waits.note(self.environ, self.clean_url)

    def rejoin(self) -> Iterable[bytes] | None:
        """Answer from a call that this person has sent by the same request, and left; None: no such call."""
        left = self.first_waits.take(self.environ, self.clean_url, self.wait_seconds)
        if left is None:
            return None
        ticket = Ticket(left.call_id, left.token)
        return self._deliver(ticket, replace(self.pending(ticket, hop=1), origin=left.origin), first=True)

    def redirect(self, pending: Pending) -> Iterable[bytes]:
        """Redirect a first request whose wait is over; the page is shown after the redirect."""
        ticket = Ticket(pending.call_id, pending.token, unsafe=self.environ["REQUEST_METHOD"] != "GET")
        start = self.with_headers(self.wait_cookie(ticket))
        return redirects.to_result_url(replace(self, start_response=start), pending)

    def accepted(self, pending: Pending) -> Iterable[bytes]:
        """Answer 202 with the page: the call was made with `wait_for_response=False`."""
        headers = [("Location", self.settings.public_url + pending.next_url)]
        return self.page(pending, {"state": "queued"}, status="202 Accepted", headers=headers, keep=True)

    # -- the clean URL

    def again(self) -> Iterable[bytes] | None:
        """Answer from the call that this browser waits for at this address; None if there is none."""
        if self.tickets.give is not None:
            return self._joined(self.tickets.give, given=True)
        if is_hard_reload(self.environ):
            return None
        for ticket in reversed(self.tickets.waits):
            if (answered := self._joined(ticket, given=False)) is not None:
                return answered
        return None

    def _joined(self, ticket: Ticket, *, given: bool) -> Iterable[bytes] | None:
        pending = self.pending(ticket, hop=1)
        try:
            found = self._find(pending)
            if found is None or (found.delivered_ms and not given):
                return None
            if not _can_begin(found):
                several = not given and len(self.tickets.waits) > 1
                return self.page(pending, self.runtime.calls.status(ticket.call_id), several=several)
            if not given and self._is_old(ticket.call_id):
                return None
        except UNAVAILABLE:
            # The call was accepted and goes on: the page finds it again when Redis is back.
            return self.page(pending, {})
        return self.announce(ticket, found) or self._deliver(ticket, replace(pending, origin=found.origin))

    def _is_old(self, call_id: str) -> bool:
        """Return whether the call ended so long ago that this person wants a new one."""
        ended = self.runtime.calls.status(call_id).get("ended")
        return ended is not None and now_ms() - int(ended) > 1000 * self.settings.delivery_grace

    def _deliver(self, ticket: Ticket, pending: Pending, *, first: bool = False) -> Iterable[bytes] | None:
        try:
            seated = self.runtime.seat(pending.call_id, self.environ, hop=pending.hop)
        except TooManyWaiting:
            return self.redirect(pending) if first else self.page(pending, {})
        with seated as seat:
            try:
                ready = self._wait_for(pending, seat, self.wait_seconds, first=first)
            except CallUnknown:
                return None
            if ready is None:
                return self.redirect(pending) if first else self.page(pending, {})
            if first and ready.snapshot.outcome is Outcome.CANCELLED:
                return None  # it was cancelled because its first client had disconnected
            delivery = Delivery.of(self, pending, ready.snapshot)
            if not self._takes(ready.snapshot, pending.origin.asked):
                replay.pass_over(ready, delivery)
                return None
            return self._answer(ticket, delivery, ready, seat)

    def _answer(self, ticket: Ticket, delivery: Delivery, ready: Ready, seat: Seat) -> Iterable[bytes]:
        grace = self.settings.delivery_grace
        # Until the end of the grace period other tabs of this address can still get this response.
        headers = [self.wait_cookie(ticket, grace), *self.drop_give()]
        start = self.with_headers(*headers)
        head = ready.snapshot.head
        if head is not None and not ticket.unsafe:
            # This URL is the app's own: the response may be cached, and asked for in ranges, as without us.
            start = self.with_headers(*headers, instead=head.headers)
        try:
            return replay.answer(ready, delivery, seat, start)
        except CallFailed as failure:
            # The person has seen the error: opening the address again is a new try.
            delivery.settle()
            if isinstance(failure, HandlerRaised):
                raise
            return error_pages.answer(
                self.pages, self.environ, self.start_response, failure, self.clean_url, headers
            )

    # -- the result URL

    def at_result_url(self, pending: Pending) -> Iterable[bytes] | None:
        """Redirect to the clean URL, without the cookie show the page here; None: answer as to a program."""
        ticket = self.tickets.waiting_for(pending.call_id)
        try:
            found = self._find(pending)
            if found is None or (found.delivered_ms and ticket is None) or not self._is_for(found):
                return None
            ready = _can_begin(found) or (pending.hop > 1 and self._wait_shortly(pending))
            if ticket is None:
                return None if ready else self.page(pending, self.runtime.calls.status(pending.call_id))
        except UNAVAILABLE:
            if ticket is None:
                return self.page(pending, {})
        handover.begin(self.runtime.calls, ticket, self.tickets.waits)
        # A hard reload sends `no-cache` with every hop; this cookie keeps the last one from a new run.
        return answers.redirect(self.with_headers(self.give_cookie(ticket)), "303 See Other", self.clean_url)

    def _wait_shortly(self, pending: Pending) -> bool:
        """Wait `_HOLD_SECONDS`, for a browser without JavaScript; return whether the response can begin."""
        try:
            with self.runtime.seat(pending.call_id, self.environ, hop=pending.hop) as seat:
                ready = self._wait_for(pending, seat, _HOLD_SECONDS)
        except TooManyWaiting:
            return False
        if ready is not None:
            _stop_reading(ready)
        return ready is not None

    # -- parts

    def _find(self, pending: Pending) -> Snapshot | None:
        with within(self.settings.page_after), self.runtime.turn():
            self.runtime.listener.check()
            found = self.runtime.calls.authorize(pending.call_id, pending.token, pending.path)
        return found if isinstance(found, Snapshot) else None

    def _is_for(self, found: Snapshot) -> bool:
        """Return whether this request asks for the same as the call's own, for instance by the same query."""
        asked = found.origin.asked
        return bool(asked) and Asked.by(self.environ).is_for(Asked.unpack(asked))

    def _takes(self, snapshot: Snapshot, asked: bytes) -> bool:
        """Return whether a response fits this request's conditions and credentials."""
        head = snapshot.head
        return head is None or Asked.by(self.environ).takes(head.status, head.headers, Asked.unpack(asked))

    def _wait_for(self, pending: Pending, seat: Seat, seconds: float, *, first: bool = False) -> Ready | None:
        # If this fails there is no wake, but the listener still looks every two seconds.
        with suppress(*UNAVAILABLE), within(seconds):
            self.runtime.calls.join(pending.call_id, self.runtime.listener.inbox)
        seconds = min(self.settings.wait_seconds, seconds)
        if first:
            return self.first_waits.wait(self.environ, pending, seat, seconds)
        return wait(self.runtime, seat, seconds, look_first=True)


def _can_begin(found: Snapshot) -> bool:
    return found.ended or found.head is not None


def _stop_reading(ready: Ready) -> None:
    if ready.reader is not None:
        ready.reader.leave()
