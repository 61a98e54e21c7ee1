"""A request on a result URL while all places are taken: it waits, without a thread where the server can."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from wsgi_timeout.errors import TooManyWaiting
from wsgi_timeout.front.exchange import Exchange
from wsgi_timeout.front.places import Seat
from wsgi_timeout.http.pending import Pending

#: Key in the environ, set by servers that can run a request again: for how many seconds it was put off.
PUT_OFF_KEY = "wsgi_timeout.put_off"
#: Seconds that the request blocks its thread under other servers.
_FULL_SECONDS = 1.0


class PutOff(BaseException):
    """Tells the server to run this request again soon; a `BaseException`, which no middleware catches."""


def seat_or_put_off(exchange: Exchange, pending: Pending) -> Seat | None:
    """Give a request on a result URL its place; None: none is free, it is to be redirected.

    Its call was accepted, so it must not end in a 503, which ends an EventSource for good: it comes again.
    Not at once, since clients follow a limited number of redirects.

    Raises:
        PutOff: the server is to run the request again.
    """
    try:
        return exchange.runtime.seat(pending.call_id, exchange.environ, hop=pending.hop)
    except TooManyWaiting:
        if not exchange.runtime.listener.draining:
            _hold_back(exchange.environ, exchange.settings.wait_seconds)
        return None


def _hold_back(environ: Mapping[str, Any], most_seconds: float) -> None:
    """Delay a redirect: clients follow a limited number of them.

    Raises:
        PutOff: the server is to run the request again; not raised once that took `most_seconds`.
    """
    so_far = environ.get(PUT_OFF_KEY)
    if so_far is None:
        time.sleep(_FULL_SECONDS)
    elif so_far < most_seconds:
        raise PutOff
