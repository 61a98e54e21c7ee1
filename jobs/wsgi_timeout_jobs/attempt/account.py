"""The log line and the metrics of an attempt that has ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from wsgi_timeout import metrics
from wsgi_timeout.http.printable import printable
from wsgi_timeout.store.record import Attempt, Outcome

log = logging.getLogger("wsgi_timeout.worker")

#: How many characters of a client's X-Request-ID are logged.
_LONGEST_ID = 128


def is_told() -> bool:
    """Return whether anybody hears of an attempt's end here."""
    return metrics.on() or log.isEnabledFor(logging.INFO)


def request_id_of(environ: Mapping[str, Any]) -> str:
    """Return the request's X-Request-ID, escaped for logs; empty: it has none."""
    return printable(environ.get("HTTP_X_REQUEST_ID", "")[:_LONGEST_ID])


def tell_end(
    name: str,
    attempt: Attempt,
    what: str,
    route: str,
    outcome: Outcome | None,
    seconds: float,
    request_id: str = "",
    *,
    goes_on: bool = False,
) -> None:
    """Log and count an attempt that ran for `seconds`.

    `what` is the method and path, `route` the pattern that captured it. `outcome`: None if something else
    ended the call; `goes_on`: the call will be retried.
    """
    first = attempt.number == 1
    queued = attempt.age_seconds
    metrics.count("attempts_total", name, route, "first" if first else "again")
    metrics.observe("run_seconds", seconds, name, route)
    if first:
        metrics.observe("queue_seconds", queued, name, route)
    if outcome is not None and not goes_on:
        metrics.count("calls_total", name, route, outcome)
    ended = "retried" if goes_on else outcome or "given up"
    waited = f"queued {queued:.3f} s, " if first else ""
    log.info(
        "%s %s attempt %d %s, %sran %.3f s, route %s%s",
        attempt.call_id,
        what,
        attempt.number,
        ended,
        waited,
        seconds,
        route,
        f", request {request_id}" if request_id else "",
        extra={
            "fields": {
                "call": attempt.call_id,
                "what": what,
                "route": route,
                "attempt": attempt.number,
                "outcome": ended,
                "run_seconds": round(seconds, 3),
                **({"queue_seconds": round(queued, 3)} if first else {}),
                **({"request_id": request_id} if request_id else {}),
            }
        },
    )
