"""Our cookies, which let a page wait at the app's own address: pure functions.

    __wsgi_timeout_wait_<address>_<call>   this browser waits for this call; one cookie for each call
    __wsgi_timeout_give_<address>_<call>   set by a redirect: the next request is for this call

`<address>` is a digest of the clean URL, since a browser sends a cookie to all paths below the cookie's own,
with any query. The values are `ID.TOKEN.FLAGS`. The app never sees them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from wsgi_timeout.compat import Self
from wsgi_timeout.http.parameters import MARK

_VALUE = re.compile(r"(fc-[A-Za-z0-9_-]{8,64})\.([A-Za-z0-9_-]{16,128})\.([a-z]{0,4})")
#: Browsers ignore a cookie with a longer path.
_LONGEST_PATH = 900


@dataclass(frozen=True, slots=True)
class Ticket:
    """The content of one cookie: a call, its token, and flags."""

    call_id: str
    token: str
    #: The call was not made with GET: its response may not be cached as this address's content.
    unsafe: bool = False
    #: The page that announces a download was shown.
    announced: bool = False

    @property
    def value(self) -> str:
        return f"{self.call_id}.{self.token}.{'u' * self.unsafe}{'a' * self.announced}"

    @classmethod
    def read(cls, value: str) -> Self | None:
        match = _VALUE.fullmatch(value)
        return cls(match[1], match[2], "u" in match[3], "a" in match[3]) if match else None

    def after_announcement(self) -> Self:
        return replace(self, announced=True)


@dataclass(frozen=True, slots=True)
class Tickets:
    """Our cookies for one address, as the browser sent them."""

    give: Ticket | None = None
    #: The newest one last.
    waits: list[Ticket] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.give is not None or bool(self.waits)

    def waiting_for(self, call_id: str) -> Ticket | None:
        return next((ticket for ticket in self.waits if ticket.call_id == call_id), None)


def take(environ: dict[str, Any]) -> str:
    """Remove our cookies from a request; return the header as the client sent it."""
    header: str = environ.get("HTTP_COOKIE", "")
    if MARK not in header:
        return ""
    kept = strip(header)
    if kept:
        environ["HTTP_COOKIE"] = kept
    else:
        del environ["HTTP_COOKIE"]
    return header


def read(header: str, clean_url: str) -> Tickets:
    """Return the cookies of an address."""
    if not header:
        return Tickets()
    pairs = [pair.strip().partition("=") for pair in header.split(";")]
    give, waits = None, []
    for name, _, value in pairs:
        ticket = Ticket.read(value)
        if ticket and name == _give(clean_url, ticket.call_id):
            give = ticket  # the newest: the redirect that set an older one was not followed
        elif ticket and name == _wait(clean_url, ticket.call_id):
            waits.append(ticket)
    return Tickets(give, waits)


def strip(header: str) -> str:
    """Return a Cookie header without our cookies; the rest stays byte for byte."""
    kept = [pair for pair in header.split(";") if not pair.lstrip().startswith(MARK)]
    return ";".join(kept).lstrip() if len(kept) < header.count(";") + 1 else header


def wait_for(ticket: Ticket, clean_url: str, seconds: float, *, secure: bool) -> tuple[str, str]:
    """Return the header that sets the cookie `wait`, with its lifetime in seconds; 0 deletes it."""
    return _set(_wait(clean_url, ticket.call_id), ticket.value, clean_url, seconds, secure=secure)


def give(ticket: Ticket, clean_url: str, seconds: float, *, secure: bool) -> tuple[str, str]:
    """Return the header that sets the cookie `give`, with its lifetime in seconds; 0 deletes it."""
    return _set(_give(clean_url, ticket.call_id), ticket.value, clean_url, seconds, secure=secure)


def _set(name: str, value: str, clean_url: str, seconds: float, *, secure: bool) -> tuple[str, str]:
    value = value if seconds else ""
    attributes = f"Path={_path(clean_url)}; Max-Age={int(seconds)}; HttpOnly; SameSite=Lax"
    return "Set-Cookie", f"{name}={value}; {attributes}{'; Secure' if secure else ''}"


def _path(clean_url: str) -> str:
    """Return the path for a cookie: the address's own, or a parent of it if that is too long."""
    path = clean_url.partition("?")[0]
    held = path.partition(";")[0][:_LONGEST_PATH]
    return path if held == path else held[: held.rindex("/") + 1]


def _give(clean_url: str, call_id: str) -> str:
    return f"{MARK}give_{_address(clean_url)}_{call_id[3:9]}"


def _wait(clean_url: str, call_id: str) -> str:
    return f"{MARK}wait_{_address(clean_url)}_{call_id[3:9]}"


def _address(clean_url: str) -> str:
    return sha256(clean_url.encode()).hexdigest()[:10]
