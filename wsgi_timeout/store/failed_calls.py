"""The calls that failed, as `wsgi-timeout calls --failed` lists them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import msgpack
import redis

from wsgi_timeout.compat import Self
from wsgi_timeout.store import junk, keys, rq_state
from wsgi_timeout.store.record import number, text

#: What an entry of the list holds; `list_failed` in prelude.lua writes it.
_ENTRY = (
    "id",
    "method",
    "path",
    "outcome",
    "attempt",
    "ended",
    "detail",
    "created",
    "started",
    "begun",
    "route",
    "queued",
)
_COLUMNS = ("ID", "NAME", "CALL", "OUTCOME", "ATTEMPTS", "WHEN", "DETAIL")


@dataclass(frozen=True, slots=True)
class FailedCall:
    """An accepted call that ended without a result."""

    id: str
    name: str
    #: The method and the path without query, or the function's name.
    call: str
    outcome: str
    attempts: int
    #: ISO 8601, in UTC.
    when: str
    #: The reason, or a traceback.
    detail: str

    @classmethod
    def of(cls, read: dict[str, str]) -> Self:
        call = described(read["method"], read["path"])
        when = iso(read["ended"], "seconds")
        attempts = number(read["attempt"])
        return cls(read["id"], read["name"], call, read["outcome"], attempts, when, read["detail"])


def listed_fields(key: str, entry: tuple[str, ...], packed: bytes) -> dict[str, str]:
    """Return the fields of an entry in a list of ended calls; none, and note it, if it is none of ours.

    The last one is left out of a call that was queued only once.
    """
    try:
        words = [word.decode(errors="replace") for word in msgpack.unpackb(packed, raw=True)]
        return dict(zip(entry[: max(len(words), len(entry) - 1)], words, strict=True))
    except junk.UNREADABLE:
        junk.note_entry(key, packed)
        return {}


def iso(milliseconds: str | bytes, precision: str = "milliseconds") -> str:
    """Return a time of Redis as ISO 8601, in UTC; empty for what is none."""
    moment = datetime.fromtimestamp(number(milliseconds) / 1000, timezone.utc)
    return moment.isoformat(timespec=precision)


def described(method: str, path: str) -> str:
    """Return what was called: method and path, or a function."""
    return f"{path}()" if method == "CALL" else f"{method} {path}"


def failed_entries(client: redis.Redis, name: str, limit: int) -> Iterator[dict[str, str]]:
    """Yield the fields of the last calls of one name that were not done; the newest first."""
    commands: Any = client
    key = keys.failed(name)
    for packed in junk.read(key, lambda: commands.lrange(key, 0, limit - 1), []):
        if values := listed_fields(key, _ENTRY, packed):
            yield {"name": name, **values}


def failed_calls(client: redis.Redis, name: str | None, limit: int) -> list[FailedCall]:
    """Return the last `limit` failed calls of one name, or of each name; the newest first."""
    found = [
        FailedCall.of(values)
        for each in ([name] if name else names(client))
        for values in failed_entries(client, each, limit)
    ]
    return sorted(found, key=lambda call: call.when, reverse=True)[:limit]


def names(client: redis.Redis) -> list[str]:
    """Return the names that workers have served, including those of functions."""
    commands: Any = client
    there = junk.read(rq_state.QUEUES, lambda: commands.smembers(rq_state.QUEUES), set())
    queues = [text(queue) for queue in there]
    ours = rq_state.queue_key("")
    return sorted(queue.removeprefix(ours) for queue in queues if queue.startswith(ours))


def failed_rows(calls: Iterable[FailedCall]) -> list[list[str]]:
    """Return the rows of a table, its heads first."""
    return [list(_COLUMNS), *(list(_row(call)) for call in calls)]


def aligned(rows: list[list[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()


def _row(call: FailedCall) -> tuple[str, ...]:
    # The last line of a traceback says what was raised.
    lines = call.detail.strip().splitlines()
    last = lines[-1] if lines else ""
    return (call.id, call.name, call.call, call.outcome, str(call.attempts), call.when, last)
