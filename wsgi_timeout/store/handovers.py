"""Notes which calls' browsers are on their way from a result URL to the address itself."""

from __future__ import annotations

from collections.abc import Iterable

from wsgi_timeout.store import keys
from wsgi_timeout.store.calls import Calls

#: Seconds for the way, at most: a browser that is closed on it never comes.
WAY_SECONDS = 3.0


def begin(calls: Calls, call_id: str, others: Iterable[str]) -> bool:
    """Note that a browser is on its way for a call; return False if it is on its way for one of `others`."""
    notes = [keys.handover(call_id), *(keys.handover(other) for other in others)]
    return bool(calls.scripts.run("hand", notes, [int(1000 * WAY_SECONDS)]))


def end(calls: Calls, call_id: str) -> None:
    """Note that the browser has come."""
    calls.redis.unlink(keys.handover(call_id))
