"""One tab after the other is led to an address: all tabs of a browser share its cookies.

The request for the address names its call by a cookie. If two tabs were led there at once, for two
calls, either would be given the newer one's result.
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
    """Block while this browser is led to the address for another of its calls, but never for long."""
    others = [other.call_id for other in waits if other.call_id != ticket.call_id]
    begin_one = partial(handovers.begin, calls, ticket.call_id, others)
    with suppress(*UNAVAILABLE):
        until(begin_one, pause=_PAUSE_SECONDS, seconds=handovers.WAY_SECONDS)


def end(calls: Calls, ticket: Ticket) -> None:
    """Let the next tab be led there: this one is about to get its answer, which takes its cookie back."""
    with suppress(*UNAVAILABLE):
        handovers.end(calls, ticket.call_id)
