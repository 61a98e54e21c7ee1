"""What the waiting page shows of a call and of its address."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from wsgi_timeout.store.record import Snapshot, now_ms


def shows_nothing(found: Snapshot) -> str:
    """Return the name of the page to show in place of a response that browsers do not display; "": none."""
    if found.head is None:
        return ""
    if found.head.status[:3] in {"204", "205"}:
        return "done"
    fields = {name.lower(): value for name, value in found.head.headers}
    saved = fields.get("content-disposition", "").strip().lower().startswith("attachment")
    return "download" if saved else ""


def progress_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return what the page shows of a call's status."""
    told = json.loads(found["progress"]) if "progress" in found else {}
    done, total = told.get("done"), told.get("total")
    part = None
    if isinstance(done, (int, float)) and isinstance(total, (int, float)) and total > 0:
        part = min(1.0, max(0.0, done / total))
    created = int(found.get("created", 0)) or now_ms()
    return {
        "state": found.get("state", ""),
        "paused": bool(found.get("suspended")),
        "elapsed": max(0, now_ms() - created) // 1000,
        "position": found.get("position"),
        "part": part,
        "message": str(told.get("message") or "")[:200],
    }


def readable(clean_url: str) -> str:
    """Return an address for people to read: without its query, which may be long or private."""
    path = unquote(clean_url.partition("?")[0])
    return "".join(char if char.isprintable() else " " for char in path)[:120]
