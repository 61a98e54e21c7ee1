"""The status URL: GET tells a call's state and consumes nothing, POST or DELETE cancels the call."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from wsgi_timeout.http import answers
from wsgi_timeout.store.calls import Calls

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

_POLL_SECONDS = 2


def show(calls: Calls, call_id: str, result_url: str, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the call's state as JSON; `Retry-After` while it has not ended."""
    found = calls.status(call_id)
    ended = found.get("state") == "ended"
    body: dict[str, Any] = {
        "call_id": call_id,
        "state": found.get("state"),
        "ready": ended or "answering" in found,
        "outcome": found.get("outcome"),
        "attempts": int(found.get("attempt", 0)),
        "position": found.get("position"),
        # After `wsgi-timeout pause` or `rq suspend` workers take no calls.
        "suspended": found.get("suspended", False),
        "progress": json.loads(found["progress"]) if "progress" in found else None,
        "created": _iso(found.get("created")),
        "started": _iso(found.get("started")),
        "ended": _iso(found.get("ended")),
        "delivered": _iso(found.get("delivered")),
        "result_url": result_url,
    }
    headers = [] if ended else [("Retry-After", str(_POLL_SECONDS))]
    return answers.as_json(start_response, "200 OK", body, headers)


def cancel(
    calls: Calls, call_id: str, grace: float, start_response: StartResponse, then: str = ""
) -> Iterable[bytes]:
    """Cancel the call: 202, or 409 when it has ended; with `then`, 303 to it in both cases."""
    cancelled = calls.cancel(call_id, "cancelled on its status URL", grace)
    if then:
        return answers.redirect(start_response, "303 See Other", then)
    if cancelled:
        return answers.as_json(start_response, "202 Accepted", {"call_id": call_id, "state": "cancelled"})
    return answers.as_json(start_response, "409 Conflict", {"call_id": call_id, "state": "ended"})


def _iso(milliseconds: str | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(int(milliseconds) / 1000, timezone.utc).isoformat(timespec="milliseconds")
