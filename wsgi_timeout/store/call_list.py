"""The calls of a Redis, for people: what waits, runs, and ended last. No key space is walked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any

import msgpack
import redis

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.failed_calls import failed_calls, names

STATES = ("queued", "running", "delayed", "ended")
_FIELDS = (
    "name",
    "method",
    "path",
    "state",
    "outcome",
    "created",
    "started",
    "ended",
    "delivered",
    "due",
    "attempt",
    "max_attempts",
    "worker",
    "progress",
    "inboxes",
    "detail",
)


@dataclass(frozen=True, slots=True)
class ListedCall:
    """One call, without its token, headers or body."""

    id: str
    name: str
    #: Its method and path without the query, or its function.
    call: str
    state: str
    outcome: str
    attempts: int
    worker: str
    #: Seconds since it was accepted, until it ended.
    age: float
    #: Seconds that it waited for a worker before its last run, or has waited.
    queued_for: float
    #: `done` of `total`, and a message, as its handler reports it.
    progress: str
    #: How many web processes have a waiter for it.
    waited_for: int


def list_calls(
    client: redis.Redis, name: str | None, states: tuple[str, ...], limit: int
) -> list[ListedCall]:
    """Return up to `limit` calls of each state and name: the first of the queue, the last that ended."""
    commands: Any = client  # redis-py's annotations know no bytes
    found: list[ListedCall] = []
    for each in [name] if name else names(client):
        for state in states:
            if state == "ended":
                found += _ended(commands, each, limit)
            else:
                found += _live(commands, _ids(commands, each, state, limit), state)
    return found


def history(client: redis.Redis, call_id: str) -> dict[str, Any] | None:
    """Return what is known of one call, with its times as ISO 8601; None if it is not known (any more)."""
    commands: Any = client
    values = _decoded(commands.hmget(keys.call(call_id), _FIELDS))
    if not values.get("state"):
        return None
    times = {
        label: _iso(values[field])
        for label, field in [
            ("queued", "created"),
            ("taken", "started"),
            ("due", "due"),
            ("ended", "ended"),
            ("delivered", "delivered"),
        ]
        if values.get(field)
    }
    call = _listed(call_id, values)
    shown = {field.name: getattr(call, field.name) for field in fields(call)}
    return {
        **shown,
        "max_attempts": int(values.get("max_attempts") or 0),
        **times,
        "detail": values.get("detail", ""),
    }


def _ids(commands: Any, name: str, state: str, limit: int) -> list[str]:
    if state == "queued":
        found = commands.lrange(rq_state.queue_key(name), 0, limit - 1)
    elif state == "running":
        found = [
            member.rpartition(b":")[0] for member in commands.zrange(rq_state.started_key(name), 0, limit - 1)
        ]
    else:
        found = commands.zrange(keys.delayed(name), 0, limit - 1)
    return [call_id.decode(errors="replace") for call_id in found]


def _live(commands: Any, ids: list[str], state: str) -> Iterator[ListedCall]:
    pipe = commands.pipeline(transaction=False)
    for call_id in ids:
        pipe.hmget(keys.call(call_id), _FIELDS)
    for call_id, found in zip(ids, pipe.execute(raise_on_error=False) if ids else (), strict=True):
        if isinstance(found, list):  # else junk lies in that key
            values = _decoded(found)
            if values.get("state") == state:
                yield _listed(call_id, values)


def _decoded(values: list[bytes | None]) -> dict[str, str]:
    return {
        field: value.decode(errors="replace")
        for field, value in zip(_FIELDS, values, strict=True)
        if value is not None
    }


def _listed(call_id: str, values: dict[str, str]) -> ListedCall:
    now = time.time() * 1000
    created = float(values.get("created") or now)
    ended = float(values.get("ended") or now)
    taken = values.get("started")
    method, path = values.get("method", ""), values.get("path", "")
    return ListedCall(
        id=call_id,
        name=values.get("name", ""),
        call=f"{path}()" if method == "CALL" else f"{method} {path}",
        state=values["state"],
        outcome=values.get("outcome", ""),
        attempts=int(values.get("attempt") or 0),
        worker=values.get("worker", "") if taken else "",
        age=_seconds(ended - created),
        queued_for=_seconds((float(taken) if taken else ended) - created),
        progress=_progress(values.get("progress", "")),
        waited_for=len(values.get("inboxes", "").split()) if values["state"] != "ended" else 0,
    )


def _progress(packed: str) -> str:
    try:
        found = json.loads(packed) if packed else {}
    except ValueError:
        return ""
    done, total, message = (found.get(name) for name in ("done", "total", "message"))
    words = [f"{done}/{total}" if total is not None else str(done)] if done is not None else []
    return " ".join([*words, *([str(message)] if message else [])])


def _ended(commands: Any, name: str, limit: int) -> list[ListedCall]:
    found = [(call.when, _failed(call)) for call in failed_calls(commands, name, limit)]
    for packed in commands.lrange(keys.done(name), 0, limit - 1):
        words = [word.decode(errors="replace") for word in msgpack.unpackb(packed, raw=True)]
        call_id, method, path, attempt, created, started, ended = words
        values = {"name": name, "method": method, "path": path, "state": "ended", "outcome": "done"}
        values |= {"attempt": attempt, "created": created, "started": started, "ended": ended}
        found.append((_iso(ended), _listed(call_id, values)))
    found.sort(key=lambda pair: pair[0], reverse=True)
    return [call for _, call in found[:limit]]


def _failed(call: Any) -> ListedCall:
    return ListedCall(call.id, call.name, call.call, "ended", call.outcome, call.attempts, "", 0, 0, "", 0)


def _seconds(milliseconds: float) -> float:
    return round(max(0.0, milliseconds) / 1000, 1)


def _iso(milliseconds: str) -> str:
    return datetime.fromtimestamp(int(milliseconds) / 1000, timezone.utc).isoformat(timespec="milliseconds")
