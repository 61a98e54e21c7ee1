"""What a look at a call's status tells: times, progress and place in the queue, no body."""

from __future__ import annotations

import json
from typing import Any

from wsgi_timeout.store.record import text

#: In the order that `status.lua` knows.
STATUS_FIELDS = (
    "state",
    "seq",
    "name",
    "outcome",
    "attempt",
    "created",
    "started",
    "ended",
    "delivered",
    "due",
    "progress",
    "durable",
    "abandon",
    "head",
)

#: Of these, what is a whole number.
_NUMBERS = {"attempt", "created", "started", "ended", "delivered", "due"}


def read_status(position: int, values: list[bytes | None], suspended: int) -> dict[str, Any]:
    """Return what `status.lua` has found, as text; what is not there, or no value of ours, is left out."""
    found: dict[str, Any] = {
        field: text(value)
        for field, value in zip(STATUS_FIELDS, values, strict=True)
        if value is not None and field not in {"abandon", "head"}
    }
    for field in _NUMBERS & found.keys():
        if not found[field].isdecimal():
            del found[field]
    if "progress" in found and not _is_report(found["progress"]):
        del found["progress"]
    if values[-1] is not None:
        found["answering"] = True
    if found.get("state") == "queued":
        found["position"] = position
        found["suspended"] = bool(suspended)
    return found


def _is_report(progress: str) -> bool:
    try:
        return isinstance(json.loads(progress), dict)
    except (ValueError, RecursionError):
        return False
