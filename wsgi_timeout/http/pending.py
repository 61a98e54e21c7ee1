"""The call that a request waits for, with what its client knows of it: id, token, URLs."""

from __future__ import annotations

from dataclasses import dataclass, field

from wsgi_timeout.http import urls
from wsgi_timeout.store.record import Origin


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
    #: Of the call's own request.
    origin: Origin = field(default_factory=Origin)

    @property
    def next_url(self) -> str:
        return urls.result_url(self.clean_url, self.call_id, self.token, self.hop + 1)

    @property
    def status_url(self) -> str:
        return urls.status_url(self.clean_url, self.call_id, self.token)
