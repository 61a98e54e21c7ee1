"""Shared by the commands that look at a deployment or act on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from typing import Any

import click
import redis

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.http.printable import printable
from wsgi_timeout.serving.running import url_here
from wsgi_timeout.store import junk
from wsgi_timeout.store.call_list import history
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.failed_calls import aligned, names
from wsgi_timeout.store.redis_errors import ANY, AWAY

name_option = click.option("--name", help="Those of the queue wt:NAME.  [default: of every queue]")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")

#: Seconds of a unit and its name, of the next smaller one and its name.
_UNITS = ((60, "min", 1, "s"), (3600, "h", 60, "min"), (86400, "d", 3600, "h"))


def at_redis(work: Callable[[redis.Redis], None]) -> None:
    """Run `work` with a client for REDIS_URL, or for this folder's `serve`; an error exits with 2.

    What is in our keys and none of ours is named on stderr, once a key.
    """
    try:
        with connect(url_here(), connections=1) as client, junk.collected() as odd:
            try:
                work(client)
            finally:
                for key, what in odd.items():
                    click.echo(printable(f"{key} is left out: {what}"), err=True)
    except BrokenPipeError:  # not Redis: nobody reads our output any more, and click ends quietly
        raise
    except AWAY as error:
        _fail(f"Redis does not answer: {error}; start it, or correct REDIS_URL")
    except (ConfigurationError, *ANY) as error:
        _fail(str(error))


def _fail(message: str) -> None:
    click.echo(f"wsgi-timeout: {message}", err=True)
    raise SystemExit(2)


def known(client: redis.Redis, call_id: str) -> dict[str, Any]:
    """Return what is known of a call, see `history`; raises `ConfigurationError` if nothing is."""
    found = history(client, call_id)
    if found is None:
        raise ConfigurationError(
            f"there is no call {call_id}: of calls that have ended the last thousand of each name are kept, "
            "for 7 days; `wsgi-timeout calls` lists them"
        )
    return found


def known_name(client: redis.Redis, name: str) -> str:
    """Return a name that workers have served; raises `ConfigurationError` for another one."""
    there = names(client)
    if name not in there:
        raise ConfigurationError(
            f"no worker has ever served {name!r} here: {', '.join(there) or 'no name'} is known"
        )
    return name


def show(lines: Iterable[str]) -> None:
    """Print lines, without what a terminal would take for commands."""
    for line in lines:
        click.echo(printable(line))


def _shown(kind: Any) -> list[Field[Any]]:
    return [each for each in fields(kind) if each.metadata.get("table", True)]


def columns_of(kind: type) -> list[str]:
    """Return the heads of a table of dataclasses."""
    return [each.metadata.get("head", each.name.upper().replace("_", " ")) for each in _shown(kind)]


def row_of(item: Any) -> list[str]:
    """Return what a table shows of a dataclass, "-" for what is empty."""
    row = []
    for each in _shown(item):
        value = getattr(item, each.name)
        row.append(duration(value) if "seconds" in each.metadata else str(value) or "-")
    return row


def duration(seconds: float) -> str:
    """Return a time for people: 3.6 s, 2 min 5 s, 3 h 20 min, 2 d 4 h."""
    if seconds < _UNITS[0][0]:
        return f"{seconds:.1f} s"
    size, name, small, rest = max(unit for unit in _UNITS if unit[0] <= seconds)
    return f"{seconds // size:.0f} {name} {seconds % size // small:.0f} {rest}"


def table(kind: type, items: Iterable[Any]) -> Iterable[str]:
    """Return the lines of a table of dataclasses."""
    return aligned([columns_of(kind), *map(row_of, items)])
