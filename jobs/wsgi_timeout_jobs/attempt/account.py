"""The log line and the metrics of an attempt that has ended."""

from __future__ import annotations

import logging

from wsgi_timeout import metrics
from wsgi_timeout.store.record import Attempt, Outcome

log = logging.getLogger("wsgi_timeout.worker")


def is_told() -> bool:
    """Return whether anybody hears of an attempt's end here."""
    return metrics.on() or log.isEnabledFor(logging.INFO)


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
    queued = attempt.queue_seconds
    metrics.count("attempts_total", name, route, "first" if first else "again")
    metrics.observe("run_seconds", seconds, name, route)
    if first:
        metrics.observe("queue_seconds", queued, name, route)
    if outcome is not None and not goes_on:
        metrics.count("calls_total", name, route, outcome)
    ended = "retried" if goes_on else outcome or "given up"
    log.info(
        "%s %s attempt %d %s, queued %.3f s, ran %.3f s, route %s%s",
        attempt.call_id,
        what,
        attempt.number,
        ended,
        queued,
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
                "queue_seconds": round(queued, 3),
                "run_seconds": round(seconds, 3),
                **({"request_id": request_id} if request_id else {}),
            }
        },
    )
