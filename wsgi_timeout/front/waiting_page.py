"""A person's browser waits under the app's own address: the waiting page, and the cookies that hold the call.

    GET /report      5 s, then 303 to the result URL, with the cookie `wait`
    GET result URL   the cookie has come back: 303 to the clean URL, with the cookie `give`; else the page
                     stands here
    GET /report      what `give` names: the waiting page; and `give` goes
    GET result URL   by the page, when the response is there: 303 to the clean URL, with `give`
    GET /report      what `give` names: the response; and `give` goes

So two tabs of one address get one response each: a page asks for the result URL of its own call, one
tab is led to the address after the other, and the cookie `wait` joins whoever opens it meanwhile. What
was delivered is joined by nobody: F5 asks the app anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wsgi_timeout.errors import CallFailed, CallUnknown, HandlerRaised, TooManyWaiting
from wsgi_timeout.front import error_pages, handover, redirects, replay
from wsgi_timeout.front.delivery import Delivery
from wsgi_timeout.front.first_waits import FirstWait, FirstWaits
from wsgi_timeout.front.places import Seat
from wsgi_timeout.front.process import Runtime
from wsgi_timeout.front.shown import progress_of, readable, shows_nothing
from wsgi_timeout.front.wait import Ready, wait
from wsgi_timeout.http import answers, cookies, urls
from wsgi_timeout.http.asked import Asked
from wsgi_timeout.http.cookies import Ticket, Tickets
from wsgi_timeout.http.navigation import is_hard_reload
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.pages.pages import Pages, Way
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.record import Outcome, Snapshot, now_ms
from wsgi_timeout.store.redis_errors import UNAVAILABLE
from wsgi_timeout.store.time_limit import within

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

#: Seconds for which a result URL holds a browser without JavaScript, which comes again and again.
_HOLD_SECONDS = 10.0
#: Seconds that the cookie `give` has for its one request.
_GIVE_SECONDS = 60.0
#: A Refresh of one second at most leaves no entry in a browser's history.
_REFRESH_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Visit:
    """One navigation of a browser."""

    runtime: Runtime
    settings: Settings
    pages: Pages
    environ: dict[str, Any]
    start_response: StartResponse
    clean_url: str
    tickets: Tickets
    first_waits: FirstWaits

    @property
    def wait_seconds(self) -> float:
        """How long the first request may wait before the page is shown."""
        page_after = 0.0 if self.settings.waiting_page == "at-once" else self.settings.page_after
        return min(self.settings.wait_seconds, page_after)

    # -- the first request

    def first_wait(self, pending: Pending, seat: Seat, seconds: float) -> tuple[Ready | None, Pending]:
        """Wait for a call of which nobody knows a URL yet; its `hop` is 1 if somebody has joined it."""
        with self._noted(pending, seat) as first:
            ready = wait(self.runtime, seat, seconds, look_first=False)
        return ready, replace(pending, hop=1) if first.joined else pending

    def _noted(self, pending: Pending, seat: Seat) -> AbstractContextManager[FirstWait]:
        abandon = self.runtime.calls.abandon
        return self.first_waits.waiting(self.environ, pending, seat.waiter, abandon)

    def redirect(self, pending: Pending) -> Iterable[bytes]:
        """Answer a first request whose wait is over: what follows shows the page."""
        ticket = Ticket(pending.call_id, pending.token, unsafe=self.environ["REQUEST_METHOD"] != "GET")
        start = self._with(self._wait(ticket))
        return redirects.to_result_url(pending, self.environ, self.settings, start)

    def accepted(self, pending: Pending) -> Iterable[bytes]:
        """Answer the first request of a call for whose response nobody waits: 202, with the page."""
        headers = [("Location", self.settings.public_url + pending.next_url)]
        return self._page(pending, {"state": "queued"}, status="202 Accepted", headers=headers, keep=True)

    # -- the clean URL

    def again(self) -> Iterable[bytes] | None:
        """Answer from the call that this browser waits for here; None if there is none (any more)."""
        if self.tickets.give is not None:
            return self._joined(self.tickets.give, given=True)
        if is_hard_reload(self.environ):
            return None
        for ticket in reversed(self.tickets.waits):
            if (answered := self._joined(ticket, given=False)) is not None:
                return answered
        # Before the first redirect a reload brings no cookie.
        with self.first_waits.join(self.environ, self.clean_url) as pending:
            if pending is None:
                return None
            ticket = Ticket(pending.call_id, pending.token)
            return self._deliver(ticket, replace(pending, hop=1), first=True)

    def forgetting(self) -> StartResponse:
        """Return a `start_response` that takes the cookies of this address back: none helped."""
        if not self.tickets:
            return self.start_response
        return self._with(*(self._wait(ticket, 0) for ticket in self.tickets.waits), *self._no_give())

    def _joined(self, ticket: Ticket, *, given: bool) -> Iterable[bytes] | None:
        pending = self._pending(ticket, hop=1)
        try:
            found = self._find(pending)
            if found is None or (found.delivered_ms and not given):
                return None
            if not _can_begin(found):
                several = not given and len(self.tickets.waits) > 1
                return self._page(pending, self.runtime.calls.status(ticket.call_id), several=several)
            if not given and self._is_old(ticket.call_id):
                return None
        except UNAVAILABLE:
            # It was accepted, and goes on: the page comes again when Redis is back.
            return self._page(pending, {})
        return self._announced(ticket, found) or self._deliver(ticket, replace(pending, asked=found.asked))

    def _is_old(self, call_id: str) -> bool:
        """Return whether the call ended so long ago that whoever comes now wants another one."""
        ended = self.runtime.calls.status(call_id).get("ended")
        return ended is not None and now_ms() - int(ended) > 1000 * self.settings.delivery_grace

    def _announced(self, ticket: Ticket, found: Snapshot) -> Iterable[bytes] | None:
        """Show a page first where a response shows none, and would leave the waiting page on the screen."""
        kind = shows_nothing(found)
        if ticket.announced or not kind:
            return None
        cookie = cookies.give(ticket.after_announcement(), self.clean_url, _GIVE_SECONDS, secure=self._secure)
        headers = [cookie, ("Refresh", str(_REFRESH_SECONDS))]
        root = urls.prefix(self.environ, self.settings.trusted_proxies) + self.environ.get("SCRIPT_NAME", "")
        ways = [Way("back", urls.local(f"{root}/"), back=True)]
        if kind == "download":
            ways.append(Way("download_again", self._pending(ticket, hop=1).next_url))
        texts = self.pages.texts(self.environ.get("HTTP_ACCEPT_LANGUAGE", ""))
        return answers.as_page(
            self.start_response, "200 OK", self.pages.message(texts, kind, ways=ways), headers
        )

    def _deliver(self, ticket: Ticket, pending: Pending, *, first: bool = False) -> Iterable[bytes] | None:
        try:
            seated = self.runtime.seat(pending.call_id, self.environ, hop=pending.hop)
        except TooManyWaiting:
            return self.redirect(pending) if first else self._page(pending, {})
        with seated as seat:
            noted = self._noted(pending, seat) if first else nullcontext()
            try:
                with noted:
                    ready = self._wait_for(pending, seat, self.wait_seconds)
            except CallUnknown:
                return None
            if ready is None:
                return self.redirect(pending) if first else self._page(pending, {})
            if first and ready.snapshot.outcome is Outcome.CANCELLED:
                return None  # since its client had left
            delivery = Delivery(self.runtime, pending, ready.snapshot, "GET", self.settings.delivery_grace)
            if not self._takes(ready.snapshot, pending.asked):
                replay.pass_over(ready, delivery)
                return None
            return self._answer(ticket, delivery, ready, seat)

    def _answer(self, ticket: Ticket, delivery: Delivery, ready: Ready, seat: Seat) -> Iterable[bytes]:
        grace = self.settings.delivery_grace
        # The other tabs of this address have until the end of the grace to come for it.
        headers = [self._wait(ticket, grace), *self._no_give()]
        start = self._with(*headers)
        head = ready.snapshot.head
        if head is not None and not ticket.unsafe:
            # It is the answer to this very address: cached, or asked for in ranges, as without us.
            start = self._with(*headers, instead=head.headers)
        try:
            return replay.answer(ready, delivery, seat, start)
        except CallFailed as failure:
            # Seen: to open the address again is to try again.
            delivery.finish(whole=True)
            if isinstance(failure, HandlerRaised):
                raise
            return error_pages.answer(
                self.pages, self.environ, self.start_response, failure, self.clean_url, headers
            )

    # -- the result URL

    def at_result_url(self, pending: Pending) -> Iterable[bytes] | None:
        """Lead to the clean URL if the cookie has come back, else wait here; None: answer as to a program."""
        ticket = self.tickets.waiting_for(pending.call_id)
        try:
            found = self._find(pending)
            if found is None or (found.delivered_ms and ticket is None) or not self._is_for(found):
                return None
            ready = _can_begin(found) or (pending.hop > 1 and self._held(pending))
            if ticket is None:
                return None if ready else self._page(pending, self.runtime.calls.status(pending.call_id))
        except UNAVAILABLE:
            if ticket is None:
                return self._page(pending, {})
        handover.begin(self.runtime.calls, ticket, self.tickets.waits)
        # A hard reload says so on every hop: without this cookie the last one would run the app anew.
        given = cookies.give(ticket, self.clean_url, _GIVE_SECONDS, secure=self._secure)
        return answers.redirect(self._with(given), "303 See Other", self.clean_url)

    def _held(self, pending: Pending) -> bool:
        """Wait for a while, for a browser without JavaScript; return whether the response can begin."""
        try:
            with self.runtime.seat(pending.call_id, self.environ, hop=pending.hop) as seat:
                ready = self._wait_for(pending, seat, _HOLD_SECONDS)
        except TooManyWaiting:
            return False
        if ready is not None:
            _leave(ready)
        return ready is not None

    # -- parts

    @property
    def _secure(self) -> bool:
        return bool(self.environ.get("wsgi.url_scheme") == "https")

    def _pending(self, ticket: Ticket, *, hop: int) -> Pending:
        return Pending(ticket.call_id, ticket.token, urls.canonical_path(self.environ), self.clean_url, hop)

    def _find(self, pending: Pending) -> Snapshot | None:
        with within(self.settings.page_after), self.runtime.turn():
            self.runtime.listener.check()
            found = self.runtime.calls.authorize(pending.call_id, pending.token, pending.path)
        return found if isinstance(found, Snapshot) else None

    def _is_for(self, found: Snapshot) -> bool:
        """Return whether this request asks for what the call's own one did, and not with another query."""
        return bool(found.asked) and Asked.by(self.environ).is_for(Asked.unpack(found.asked))

    def _takes(self, snapshot: Snapshot, asked: bytes) -> bool:
        """Return whether a response fits this request, which may have a condition, or other credentials."""
        head = snapshot.head
        return head is None or Asked.by(self.environ).takes(head.status, head.headers, Asked.unpack(asked))

    def _wait_for(self, pending: Pending, seat: Seat, seconds: float) -> Ready | None:
        # Without it nobody wakes us, and the listener still looks every two seconds.
        with suppress(*UNAVAILABLE), within(seconds):
            self.runtime.calls.join(pending.call_id, self.runtime.listener.inbox)
        return wait(self.runtime, seat, min(self.settings.wait_seconds, seconds), look_first=True)

    def _page(
        self,
        pending: Pending,
        found: dict[str, Any],
        *,
        status: str = "200 OK",
        headers: answers.Headers | None = None,
        keep: bool = False,
        several: bool = False,
    ) -> Iterable[bytes]:
        page = self.pages.waiting(
            self.pages.texts(self.environ.get("HTTP_ACCEPT_LANGUAGE", "")),
            what=readable(self.clean_url),
            status_url=urls.status_url(self.clean_url, pending.call_id, pending.token),
            result_url=pending.next_url,
            keep=keep,
            several=several,
            **progress_of(found),
        )
        refresh = ("Refresh", f"{_REFRESH_SECONDS}; url={pending.next_url}")
        return answers.as_page(
            self.start_response, status, page, [*(headers or []), *self._no_give(), refresh]
        )

    def _wait(self, ticket: Ticket, seconds: float | None = None) -> tuple[str, str]:
        kept = self.settings.result_ttl if seconds is None else seconds
        return cookies.wait_for(ticket, self.clean_url, kept, secure=self._secure)

    def _no_give(self) -> answers.Headers:
        """End the way that the cookie `give` has led, if there is one."""
        given = self.tickets.give
        if given is None:
            return []
        handover.end(self.runtime.calls, given)
        return [cookies.give(given, self.clean_url, 0, secure=self._secure)]

    def _with(self, *more: tuple[str, str], instead: answers.Headers | None = None) -> StartResponse:
        """Return a `start_response` that sends more headers, or others `instead` of those it is given."""

        def start(status: str, headers: answers.Headers, *exc_info: Any) -> Callable[[bytes], object]:
            kept = headers if instead is None else instead
            return self.start_response(status, [*kept, *more], *exc_info)

        return start


def _can_begin(found: Snapshot) -> bool:
    return found.ended or found.head is not None


def _leave(ready: Ready) -> None:
    if ready.reader is not None:
        ready.reader.leave()
