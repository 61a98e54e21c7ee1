"""The calls that failed, as `wsgi-timeout calls --failed` lists them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import msgpack
import redis

from wsgi_timeout.compat import Self
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.record import text

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
    def unpack(cls, name: str, packed: bytes) -> Self:
        read = fields_of(_ENTRY, packed)
        when = datetime.fromtimestamp(int(read["ended"]) / 1000, timezone.utc).isoformat(timespec="seconds")
        call = described(read["method"], read["path"])
        return cls(read["id"], name, call, read["outcome"], int(read["attempt"]), when, read["detail"])


def fields_of(entry: tuple[str, ...], packed: bytes) -> dict[str, str]:
    """Return the fields of an entry in a list of ended calls; raises if nobody of ours wrote it."""
    words = [word.decode(errors="replace") for word in msgpack.unpackb(packed, raw=True)]
    return dict(zip(entry, words, strict=True))


def described(method: str, path: str) -> str:
    """Return what was called: method and path, or a function."""
    return f"{path}()" if method == "CALL" else f"{method} {path}"


def failed_entries(client: redis.Redis, name: str, limit: int) -> Iterator[dict[str, str]]:
    """Yield the fields of the last calls of one name that were not done; the newest first."""
    commands: Any = client
    for packed in commands.lrange(keys.failed(name), 0, limit - 1):
        with suppress(Exception):  # no entry of ours
            yield {"name": name, **fields_of(_ENTRY, packed)}


def failed_calls(client: redis.Redis, name: str | None, limit: int) -> list[FailedCall]:
    """Return the last `limit` failed calls of one name, or of each name; the newest first."""
    commands: Any = client  # redis-py's annotations know no bytes
    found = []
    for each in [name] if name else names(client):
        for packed in commands.lrange(keys.failed(each), 0, limit - 1):
            with suppress(Exception):  # an entry that is not ours is left out
                found.append(FailedCall.unpack(each, packed))
    return sorted(found, key=lambda call: call.when, reverse=True)[:limit]


def names(client: redis.Redis) -> list[str]:
    """Return the names that workers have served, including those of functions."""
    commands: Any = client
    queues = [text(queue) for queue in commands.smembers(rq_state.QUEUES)]
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
