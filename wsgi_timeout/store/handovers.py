"""Records for which calls a browser is being redirected from a result URL to the page's address."""

from __future__ import annotations

from collections.abc import Iterable

from wsgi_timeout.store import keys
from wsgi_timeout.store.calls import Calls

#: Seconds after which a redirected browser is no longer expected: its tab may have been closed.
WAY_SECONDS = 3.0


def begin(calls: Calls, call_id: str, others: Iterable[str]) -> bool:
    """Record that a browser is redirected for a call; return False if it already is for one of `others`."""
    notes = [keys.handover(call_id), *(keys.handover(other) for other in others)]
    return bool(calls.scripts.run("hand", notes, [int(1000 * WAY_SECONDS)]))


def end(calls: Calls, call_id: str) -> None:
    """Record that the browser has arrived."""
    calls.redis.unlink(keys.handover(call_id))
