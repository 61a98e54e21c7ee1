"""What a person's browser is shown: our pages, and responses with our cookies on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsgi_timeout.current import CALL_ID_KEY
from wsgi_timeout.front import handover
from wsgi_timeout.front.exchange import Exchange
from wsgi_timeout.front.shown import progress_of, readable, shows_nothing
from wsgi_timeout.http import answers, cookies, urls
from wsgi_timeout.http.cookies import Ticket, Tickets
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.pages.pages import Pages, Way
from wsgi_timeout.store.record import Snapshot

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

#: Lifetime in seconds of the cookie `give`, which is for the next request only.
_GIVE_SECONDS = 60.0
#: A Refresh of one second at most leaves no entry in a browser's history.
_REFRESH_SECONDS = 1


@dataclass(frozen=True, slots=True)
class BrowserAnswers(Exchange):
    """One navigation, answered with our pages; it sets the cookies of its address."""

    pages: Pages
    clean_url: str
    tickets: Tickets

    def clearing_cookies(self) -> StartResponse:
        """Return a `start_response` that deletes our cookies for this address: none names a live call."""
        if not self.tickets:
            return self.start_response
        ends = [self.wait_cookie(ticket, 0) for ticket in self.tickets.waits]
        return self.with_headers(*ends, *self.drop_give())

    def page(
        self,
        pending: Pending,
        found: dict[str, Any],
        *,
        status: str = "200 OK",
        headers: answers.Headers | None = None,
        keep: bool = False,
        several: bool = False,
    ) -> Iterable[bytes]:
        """Answer with the waiting page of a call; `found` is what its status says, {} where Redis is away.

        Args:
            keep: tell the person to keep the address: the call was made with `wait_for_response=False`.
            several: the browser waits for more than one call at this address.
        """
        self.environ[CALL_ID_KEY] = pending.call_id  # for the access log
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
            self.start_response, status, page, [*(headers or []), *self.drop_give(), refresh]
        )

    def wait_cookie(self, ticket: Ticket, seconds: float | None = None) -> tuple[str, str]:
        """Return the header that sets the cookie `wait`, by default for `result_ttl`; 0 deletes it."""
        kept = self.settings.result_ttl if seconds is None else seconds
        return cookies.wait_for(ticket, self.clean_url, kept, secure=self._secure)

    def give_cookie(self, ticket: Ticket) -> tuple[str, str]:
        """Return the header that sets the cookie `give`, by which the next request gets this call."""
        return cookies.give(ticket, self.clean_url, _GIVE_SECONDS, secure=self._secure)

    def drop_give(self) -> answers.Headers:
        """Return the header that deletes the cookie `give`, and let the next tab be redirected."""
        given = self.tickets.give
        if given is None:
            return []
        handover.end(self.runtime.calls, given)
        return [cookies.give(given, self.clean_url, 0, secure=self._secure)]

    def with_headers(self, *more: tuple[str, str], instead: answers.Headers | None = None) -> StartResponse:
        """Return a `start_response` that adds headers; `instead` replaces those that it is given."""
        return answers.with_headers(self.start_response, more, instead)

    def announce(self, ticket: Ticket, found: Snapshot) -> Iterable[bytes] | None:
        """Show a page of ours before a response that browsers do not display, such as a download."""
        kind = shows_nothing(found)
        if ticket.announced or not kind:
            return None
        headers = [self.give_cookie(ticket.after_announcement()), ("Refresh", str(_REFRESH_SECONDS))]
        root = urls.prefix(self.environ, self.settings.trusted_proxies) + self.environ.get("SCRIPT_NAME", "")
        ways = [Way("back", urls.local(f"{root}/"), back=True)]
        if kind == "download":
            ways.append(Way("download_again", self.pending(ticket, hop=1).next_url))
        texts = self.pages.texts(self.environ.get("HTTP_ACCEPT_LANGUAGE", ""))
        return answers.as_page(
            self.start_response, "200 OK", self.pages.message(texts, kind, ways=ways), headers
        )

    @property
    def _secure(self) -> bool:
        return bool(self.environ.get("wsgi.url_scheme") == "https")

    def pending(self, ticket: Ticket, *, hop: int) -> Pending:
        """Return the call that a cookie names, as seen from this address."""
        return Pending(ticket.call_id, ticket.token, urls.canonical_path(self.environ), self.clean_url, hop)
