"""A result URL that is given out before its time, by a process that was told to stop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from wsgi_timeout.front.process import Runtime
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.redis_errors import ANY


class ToldEarly:
    """An answer with a result URL; once it was sent, Redis is told that the result may be asked for.

    Not before: a process that stops answers at once, also while Redis is away.
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
        """Tell it; where that fails, the client that comes back at once is served all the same."""
        with suppress(*ANY):
            self._runtime.listener.check()
            self._runtime.calls.tell(self._pending.call_id, self._settings.result_ttl)
