"""The call that a request waits for, with what its client knows of it: id, token, URLs."""

from __future__ import annotations

from dataclasses import dataclass

from wsgi_timeout.http import urls


@dataclass(frozen=True, slots=True)
class Pending:
    """A call that a request waits for."""

    call_id: str
    token: str
    #: The request's path, normalised by `urls.canonical_path`.
    path: str
    #: The request's own URL without our parameters.
    clean_url: str
    #: How many redirects the client has followed; 0: it was not told the result URL.
    hop: int
    #: What the call's own request asked for: a packed `http.asked.Asked`.
    asked: bytes = b""
    #: The pattern by which the request was captured.
    route: str = "*"

    @property
    def next_url(self) -> str:
        return urls.result_url(self.clean_url, self.call_id, self.token, self.hop + 1)

    @property
    def status_url(self) -> str:
        return urls.status_url(self.clean_url, self.call_id, self.token)
