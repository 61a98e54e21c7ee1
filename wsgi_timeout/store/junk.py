"""What others have written into our keys: it is left out, and the operator's commands name it, once a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgpack

from wsgi_timeout.store.redis_errors import ErrorReply

#: What was noted first of each key.
Junk = dict[str, str]
OTHER_TYPE = "it is another type of value than ours"
#: What is raised by what cannot be unpacked, or is unpacked into something else.
UNREADABLE = (ValueError, TypeError, AttributeError, RecursionError, msgpack.UnpackException)
#: How many keys are noted at most.
_MOST = 100
_collected: ContextVar[Junk | None] = ContextVar("junk", default=None)


@contextmanager
def collected() -> Iterator[Junk]:
    """Return, for a `with` block, what is noted in it; outside of one junk is left out silently."""
    found: Junk = {}
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def note(key: str, what: str) -> None:
    """Note that a key holds what none of ours has written."""
    found = _collected.get()
    if found is not None and len(found) < _MOST:
        found.setdefault(key, what)


def note_entry(key: str, entry: object) -> None:
    """Note an entry of a key that cannot be read."""
    note(key, f"an entry is none of ours: {str(entry)[:60]}")


def read(key: str, ask: Callable[[], Any], empty: Any) -> Any:
    """Return what `ask` reads of a key; `empty` where it is of another type. Raises what redis-py raises."""
    try:
        return ask()
    except ErrorReply as error:
        if not _is_other_type(error):
            raise
        note(key, OTHER_TYPE)
        return empty


def answer(key: str, reply: Any, empty: Any) -> Any:
    """Return a pipeline's reply about a key; `empty` for an error. Notes a key of another type."""
    if not isinstance(reply, Exception):
        return reply
    if _is_other_type(reply):
        note(key, OTHER_TYPE)
    return empty


def _is_other_type(error: Exception) -> bool:
    return str(error).startswith("WRONGTYPE")
