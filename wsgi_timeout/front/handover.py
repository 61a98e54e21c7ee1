"""Redirects from result URLs back to the page's address, one tab of a browser at a time.

The request that follows names its call by a cookie, and all tabs of a browser share cookies. If two tabs
were redirected at the same time, for two calls, both would get the newer call's result.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from wsgi_timeout.http.cookies import Ticket
from wsgi_timeout.retrying import until
from wsgi_timeout.store import handovers
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.redis_errors import UNAVAILABLE

_PAUSE_SECONDS = 0.05


def begin(calls: Calls, ticket: Ticket, waits: Iterable[Ticket]) -> None:
    """Block while another call of this browser is being handed over, `WAY_SECONDS` at most."""
    others = [other.call_id for other in waits if other.call_id != ticket.call_id]
    is_free = partial(handovers.begin, calls, ticket.call_id, others)
    with suppress(*UNAVAILABLE):
        until(is_free, pause=_PAUSE_SECONDS, seconds=handovers.WAY_SECONDS)


def end(calls: Calls, ticket: Ticket) -> None:
    """Let the next tab be redirected: this one has arrived, and its answer removes the cookie."""
    with suppress(*UNAVAILABLE):
        handovers.end(calls, ticket.call_id)
