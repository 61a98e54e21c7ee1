"""Lists calls for people: those that wait, run, and ended last. It never scans the key space."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import msgpack
import redis

from wsgi_timeout.store import junk, keys, rq_state
from wsgi_timeout.store.failed_calls import described, failed_entries, iso, listed_fields, names
from wsgi_timeout.store.record import IDEMPOTENT, now_ms, number

STATES = ("queued", "running", "delayed", "ended")
_FIELDS = (
    "name",
    "method",
    "path",
    "state",
    "outcome",
    "created",
    "queued",
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
    "route",
    "begun",
    "hops",
    "request_id",
)
#: What an entry of the list of calls that are done holds; `finish.lua` writes it.
_DONE = ("id", "method", "path", "attempt", "ended", "created", "started", "begun", "route", "queued")


#: The times of a call, as they are shown, by its record's fields.
_TIMES = {
    "queued": "created",
    "queued_again": "queued",
    "taken": "started",
    "first_byte": "begun",
    "due": "due",
    "ended": "ended",
    "delivered": "delivered",
}
#: Entries that the lists of ended calls may have, see `list_done`.
_KEPT = 1200
#: What is said of a call that stands in a list only.
NOT_KEPT = "it was sent, or its client had left: its result is not kept any longer"


@dataclass(frozen=True, slots=True)
class ListedCall:
    """One call, without its token, headers or body."""

    id: str
    name: str
    #: The method and the path without query, or the function's name.
    call: str
    state: str
    outcome: str
    #: The pattern that its request was captured by.
    route: str
    attempts: int
    worker: str
    #: Seconds since it was accepted; of an ended call, until it ended.
    age: float = field(metadata={"seconds": True})
    #: Seconds that it waited, or has waited so far, for a worker before its last run.
    queued_for: float = field(metadata={"seconds": True})
    #: The handler's last report: `done` of `total`, and a message.
    progress: str
    #: In how many web processes a request waits for it.
    waited_for: int = field(metadata={"head": "WAITERS"})


def list_calls(
    client: redis.Redis, name: str | None, states: tuple[str, ...], limit: int
) -> list[ListedCall]:
    """Return up to `limit` calls of each state and name: the queue's first ones, the last that ended."""
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
    """Return what is recorded of one call, times as ISO 8601; None if it is unknown or has expired.

    If its result has expired, only what the lists of ended calls say of it.
    """
    commands: Any = client
    key = keys.call(call_id)
    values = _decoded(junk.read(key, lambda: commands.hmget(key, _FIELDS), [None] * len(_FIELDS)))
    if not values.get("state"):
        values = _from_lists(commands, call_id)
        if not values:
            return None
    if values.get("outcome") == "done":
        values.setdefault("begun", values.get("ended", ""))
    times = {label: iso(values[field]) for label, field in _TIMES.items() if values.get(field)}
    call = _listed(call_id, values)
    shown = {field.name: getattr(call, field.name) for field in fields(call)}
    hops = {"hops": number(values["hops"])} if "hops" in values else {}
    sent = {"request_id": values["request_id"]} if "request_id" in values else {}
    # Others run once. A function's retries are another thing, and part of its signed request.
    limited = "max_attempts" in values and values.get("method") in IDEMPOTENT
    limit = {"max_attempts": number(values["max_attempts"])} if limited else {}
    return {**shown, **sent, **limit, **times, **hops, "detail": values.get("detail", "")}


def _from_lists(commands: Any, call_id: str) -> dict[str, str]:
    for name in names(commands):
        for values in (*_done_entries(commands, name, _KEPT), *failed_entries(commands, name, _KEPT)):
            if values["id"] == call_id:
                told = {"detail": NOT_KEPT, **_delivered(commands, name, call_id)}
                # Of one that failed, what is known says more: the reason.
                return {"state": "ended", "outcome": "done", **told, **values}
    return {}


def _delivered(commands: Any, name: str, call_id: str) -> dict[str, str]:
    """Return what a tombstone tells: there is none of a call whose result URL nobody was told."""
    key = keys.tombstones(name)
    grave = junk.read(key, lambda: commands.hget(key, call_id), None)
    if grave is None:
        return {}
    try:
        delivered, _, _, hops = msgpack.unpackb(grave)
    except junk.UNREADABLE:
        junk.note_entry(key, grave)
        return {}
    return {"delivered": str(delivered), "hops": str(hops)}


def _ids(commands: Any, name: str, state: str, limit: int) -> list[str]:
    last = limit - 1
    if state == "queued":
        key = rq_state.queue_key(name)
        found = junk.read(key, lambda: commands.lrange(key, 0, last), [])
    else:
        key = rq_state.started_key(name) if state == "running" else keys.delayed(name)
        found = junk.read(key, lambda: commands.zrange(key, 0, last), [])
    if state == "running":
        found = [member.rpartition(b":")[0] for member in found]
    return [call_id.decode(errors="replace") for call_id in found]


def _live(commands: Any, ids: list[str], state: str) -> Iterator[ListedCall]:
    pipe = commands.pipeline(transaction=False)
    for call_id in ids:
        pipe.hmget(keys.call(call_id), _FIELDS)
    for call_id, found in zip(ids, pipe.execute(raise_on_error=False) if ids else (), strict=True):
        values = _decoded(junk.answer(keys.call(call_id), found, [None] * len(_FIELDS)))
        if values.get("state") == state:
            yield _listed(call_id, values)


def _decoded(values: list[bytes | None]) -> dict[str, str]:
    return {
        field: value.decode(errors="replace")
        for field, value in zip(_FIELDS, values, strict=True)
        if value is not None
    }


def _listed(call_id: str, values: dict[str, str]) -> ListedCall:
    now = now_ms()
    created = number(values.get("created")) or now
    ended = number(values.get("ended")) or now
    taken = number(values.get("started"))
    queued = number(values.get("queued")) or created
    return ListedCall(
        id=call_id,
        name=values.get("name", ""),
        call=described(values.get("method", ""), values.get("path", "")),
        state=values["state"],
        outcome=values.get("outcome", ""),
        route=values.get("route", ""),
        attempts=number(values.get("attempt")),
        worker=values.get("worker", "") if taken else "",
        age=_seconds(ended - created),
        queued_for=_seconds((taken or ended) - queued),
        progress=_progress(values.get("progress", "")),
        waited_for=len(values.get("inboxes", "").split()) if values["state"] != "ended" else 0,
    )


def _progress(packed: str) -> str:
    try:
        found = json.loads(packed) if packed else {}
    except (ValueError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return ""
    done, total, message = (found.get(name) for name in ("done", "total", "message"))
    words = [f"{done}/{total}" if total is not None else str(done)] if done is not None else []
    return " ".join([*words, *([str(message)] if message else [])])


def _ended(commands: Any, name: str, limit: int) -> list[ListedCall]:
    found = [*_done_entries(commands, name, limit), *failed_entries(commands, name, limit)]
    found.sort(key=lambda values: values["ended"], reverse=True)
    return [
        _listed(values["id"], {"state": "ended", "outcome": "done", **values}) for values in found[:limit]
    ]


def _done_entries(commands: Any, name: str, limit: int) -> Iterator[dict[str, str]]:
    key = keys.done(name)
    for packed in junk.read(key, lambda: commands.lrange(key, 0, limit - 1), []):
        if values := listed_fields(key, _DONE, packed):
            yield {"name": name, **values}


def _seconds(milliseconds: int) -> float:
    return round(max(0, milliseconds) / 1000, 1)
