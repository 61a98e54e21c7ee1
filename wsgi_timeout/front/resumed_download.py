"""A browser's download that goes on after it broke off.

Chromium follows no redirect of such a request, and takes no 503: the download has failed then, until the
person resumes it by hand. So the request waits for as long as a chain of redirects would last. If a proxy
cuts it before, the call is kept, and the person's next try joins it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsgi_timeout.front import policy, redirects
from wsgi_timeout.front.waiting_page import Visit
from wsgi_timeout.http.pending import Pending

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

#: How many redirects Chromium follows.
_WAITS = 20


class RunAnew(Exception):
    """Raised where a request on a result URL must run as a new one: its client follows no redirect."""


@dataclass(frozen=True, slots=True)
class ResumedDownload(Visit):
    """A request by which a browser goes on with a download."""

    @property
    def wait_seconds(self) -> float:
        """For how many seconds the request waits; see `patience`."""
        return self.settings.wait_seconds

    def redirect(self, pending: Pending) -> Iterable[bytes]:
        """Redirect as any other client; the same request again joins the call."""
        self.first_waits.leave(self.environ, pending, noted=False)
        return redirects.to_result_url(self, pending)

    def accepted(self, pending: Pending) -> Iterable[bytes]:
        """Answer 202, as a program."""
        return redirects.accepted(self, pending)

    def again(self) -> Iterable[bytes] | None:
        """Return None: the cookies are those of the call whose response broke off."""
        return None

    def at_result_url(self, pending: Pending) -> Iterable[bytes] | None:  # noqa: ARG002
        """Return None: it is answered as to a program."""
        return None

    def clearing_cookies(self) -> StartResponse:
        """Return a `start_response` that leaves the cookies as they are."""
        return self.start_response


def patience(wait_seconds: float, limit: float) -> float:
    """Return for how long a resumed download waits: as long as its browser would follow redirects."""
    return min(_WAITS * wait_seconds, limit)


def at_result_url(start_response: StartResponse, clean_url: str) -> StartResponse:
    """Return a `start_response` for an answer of the app's to a request on a result URL."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
        return start_response(status, policy.on_result_url(headers, clean_url), *exc_info)

    return start
