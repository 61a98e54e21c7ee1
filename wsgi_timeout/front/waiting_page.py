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
from typing import TYPE_CHECKING, Any

from wsgi_timeout.errors import CallFailed, CallUnknown, HandlerRaised, TooManyWaiting
from wsgi_timeout.front import error_pages, handover, redirects, replay
from wsgi_timeout.front.delivery import Delivery
from wsgi_timeout.front.first_waits import FirstWaits
from wsgi_timeout.front.places import Seat
from wsgi_timeout.front.process import Runtime
from wsgi_timeout.front.shown import progress_of, readable, shows_nothing
from wsgi_timeout.front.wait import Ready, wait
from wsgi_timeout.http import answers, cookies, urls
from wsgi_timeout.http.asked import Asked
from wsgi_timeout.http.cookies import Ticket, Tickets
from wsgi_timeout.http.navigation import has_body, is_hard_reload
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.pages.pages import Pages, Way
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.record import Outcome, Snapshot, now_ms
from wsgi_timeout.store.redis_errors import UNAVAILABLE
from wsgi_timeout.store.time_limit import within

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

#: Seconds for which a result URL blocks a browser without JavaScript, whose page reloads itself.
_HOLD_SECONDS = 10.0
#: Lifetime in seconds of the cookie `give`, which is for the next request only.
_GIVE_SECONDS = 60.0
#: A Refresh of one second at most leaves no entry in a browser's history.
_REFRESH_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Visit:
    """One navigation of a person's browser."""

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
        """For how many seconds the first request may wait before the page is shown."""
        page_after = 0.0 if self.settings.waiting_page == "at-once" else self.settings.page_after
        return min(self.settings.wait_seconds, page_after)

    # -- the first request

    def note(self) -> str:
        """Return the key where a call may be noted that this person has left; "" where none may be joined."""
        if self.environ["REQUEST_METHOD"] != "GET" or is_hard_reload(self.environ) or has_body(self.environ):
            return ""
        return self.first_waits.note(self.environ, self.clean_url)

    def rejoin(self) -> Iterable[bytes] | None:
        """Answer from the call that this person has left by the same request; None if there is none."""
        left = self.first_waits.take(self.environ, self.clean_url, self.wait_seconds)
        if left is None:
            return None
        ticket = Ticket(left.call_id, left.token)
        return self._deliver(ticket, replace(self._pending(ticket, hop=1), asked=left.asked), first=True)

    def redirect(self, pending: Pending) -> Iterable[bytes]:
        """Redirect a first request whose wait is over; the page is shown after the redirect."""
        ticket = Ticket(pending.call_id, pending.token, unsafe=self.environ["REQUEST_METHOD"] != "GET")
        start = self._with(self._wait_cookie(ticket))
        return redirects.to_result_url(pending, self.environ, self.settings, start)

    def accepted(self, pending: Pending) -> Iterable[bytes]:
        """Answer 202 with the page: the call was made with `wait_for_response=False`."""
        headers = [("Location", self.settings.public_url + pending.next_url)]
        return self._page(pending, {"state": "queued"}, status="202 Accepted", headers=headers, keep=True)

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

    def clearing_cookies(self) -> StartResponse:
        """Return a `start_response` that deletes our cookies for this address: none names a live call."""
        if not self.tickets:
            return self.start_response
        ends = [self._wait_cookie(ticket, 0) for ticket in self.tickets.waits]
        return self._with(*ends, *self._drop_give())

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
            # The call was accepted and goes on: the page finds it again when Redis is back.
            return self._page(pending, {})
        return self._announced(ticket, found) or self._deliver(ticket, replace(pending, asked=found.asked))

    def _is_old(self, call_id: str) -> bool:
        """Return whether the call ended so long ago that this person wants a new one."""
        ended = self.runtime.calls.status(call_id).get("ended")
        return ended is not None and now_ms() - int(ended) > 1000 * self.settings.delivery_grace

    def _announced(self, ticket: Ticket, found: Snapshot) -> Iterable[bytes] | None:
        """Show a page of ours before a response that browsers do not display, such as a download."""
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
            try:
                ready = self._wait_for(pending, seat, self.wait_seconds, first=first)
            except CallUnknown:
                return None
            if ready is None:
                return self.redirect(pending) if first else self._page(pending, {})
            if first and ready.snapshot.outcome is Outcome.CANCELLED:
                return None  # it was cancelled because its first client had disconnected
            delivery = Delivery(self.runtime, pending, ready.snapshot, "GET", self.settings.delivery_grace)
            if not self._takes(ready.snapshot, pending.asked):
                replay.pass_over(ready, delivery)
                return None
            return self._answer(ticket, delivery, ready, seat)

    def _answer(self, ticket: Ticket, delivery: Delivery, ready: Ready, seat: Seat) -> Iterable[bytes]:
        grace = self.settings.delivery_grace
        # Until the end of the grace period other tabs of this address can still get this response.
        headers = [self._wait_cookie(ticket, grace), *self._drop_give()]
        start = self._with(*headers)
        head = ready.snapshot.head
        if head is not None and not ticket.unsafe:
            # This URL is the app's own: the response may be cached, and asked for in ranges, as without us.
            start = self._with(*headers, instead=head.headers)
        try:
            return replay.answer(ready, delivery, seat, start)
        except CallFailed as failure:
            # The person has seen the error: opening the address again is a new try.
            delivery.finish(whole=True)
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
                return None if ready else self._page(pending, self.runtime.calls.status(pending.call_id))
        except UNAVAILABLE:
            if ticket is None:
                return self._page(pending, {})
        handover.begin(self.runtime.calls, ticket, self.tickets.waits)
        # A hard reload sends `no-cache` with every hop; this cookie keeps the last one from a new run.
        given = cookies.give(ticket, self.clean_url, _GIVE_SECONDS, secure=self._secure)
        return answers.redirect(self._with(given), "303 See Other", self.clean_url)

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
        """Return whether this request asks for the same as the call's own, for instance by the same query."""
        return bool(found.asked) and Asked.by(self.environ).is_for(Asked.unpack(found.asked))

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
            self.start_response, status, page, [*(headers or []), *self._drop_give(), refresh]
        )

    def _wait_cookie(self, ticket: Ticket, seconds: float | None = None) -> tuple[str, str]:
        kept = self.settings.result_ttl if seconds is None else seconds
        return cookies.wait_for(ticket, self.clean_url, kept, secure=self._secure)

    def _drop_give(self) -> answers.Headers:
        """Return the header that deletes the cookie `give`, and let the next tab be redirected."""
        given = self.tickets.give
        if given is None:
            return []
        handover.end(self.runtime.calls, given)
        return [cookies.give(given, self.clean_url, 0, secure=self._secure)]

    def _with(self, *more: tuple[str, str], instead: answers.Headers | None = None) -> StartResponse:
        """Return a `start_response` that adds headers; `instead` replaces those that it is given."""
        return answers.with_headers(self.start_response, more, instead)


def _can_begin(found: Snapshot) -> bool:
    return found.ended or found.head is not None


def _stop_reading(ready: Ready) -> None:
    if ready.reader is not None:
        ready.reader.leave()
