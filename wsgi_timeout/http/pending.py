"""The call that one request waits for, as its client knows it."""

from __future__ import annotations

from dataclasses import dataclass

from wsgi_timeout.http import urls


@dataclass(frozen=True, slots=True)
class Pending:
    """A call that a request waits for."""

    call_id: str
    token: str
    #: Its path as `urls.canonical_path` spells it.
    path: str
    #: The request's own URL without our parameters.
    clean_url: str
    #: Redirects so far; 0: its result URL was never given out.
    hop: int
    #: What the call's own request asked for, packed: see `http.asked`.
    asked: bytes = b""
    #: The pattern of ours that its request was captured by.
    route: str = "*"

    @property
    def next_url(self) -> str:
        return urls.result_url(self.clean_url, self.call_id, self.token, self.hop + 1)

    @property
    def status_url(self) -> str:
        return urls.status_url(self.clean_url, self.call_id, self.token)
