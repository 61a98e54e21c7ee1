"""A redirect that is sent earlier than the call was told, because this process is to stop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from wsgi_timeout.front.process import Runtime
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.redis_errors import ANY


class ToldEarly:
    """An answer with a result URL; after it was sent, Redis is told that the URL is known.

    Afterwards, because a stopping process answers at once, also while Redis is away.
    """

    def __init__(
        self, answer: Iterable[bytes], runtime: Runtime, pending: Pending, settings: Settings
    ) -> None:
        self._answer = answer
        self._runtime = runtime
        self._pending = pending
        self._settings = settings

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        """Tell Redis; if that fails, a client that comes back at once is served nevertheless."""
        with suppress(*ANY):
            self._runtime.listener.check()
            self._runtime.calls.tell(self._pending.call_id, self._settings.result_ttl)
