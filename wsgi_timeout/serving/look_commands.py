"""The commands that look at a deployment: calls, show, cancel, retry, workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

import click
import redis

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.http.printable import printable
from wsgi_timeout.serving.running import url_here
from wsgi_timeout.store import keys
from wsgi_timeout.store.call_list import STATES, ListedCall, history, list_calls
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.failed_calls import failed_calls, table
from wsgi_timeout.store.record import Outcome
from wsgi_timeout.store.redis_errors import ANY, AWAY
from wsgi_timeout.store.worker_list import ListedWorker, list_workers

_name = click.option("--name", help="Those of the queue wt:NAME.  [default: of every queue]")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.command("calls")
@click.option("--failed", is_flag=True, help="Only those that ended otherwise than done, and why.")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only those in this state.")
@_name
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="So many of each state and name; of the ended 1000 are kept.",
)
@click.option("--watch", is_flag=True, help="Show them anew every second, until Ctrl-C.")
@_json
def calls_command(
    *, failed: bool, states: tuple[str, ...], name: str | None, limit: int, watch: bool, as_json: bool
) -> None:
    """List the calls at REDIS_URL, or of the `serve` that runs in this folder.

    Ended ones are kept for 7 days.
    """

    def work(client: redis.Redis) -> None:
        if failed:
            found = failed_calls(client, name, limit)
            _show((json.dumps(asdict(call)) for call in found) if as_json else table(found))
            return
        while True:
            listed = list_calls(client, name, states or STATES, limit)
            if watch:
                click.clear()
            _show((json.dumps(asdict(call)) for call in listed) if as_json else _table(ListedCall, listed))
            if not watch:
                return
            time.sleep(1)

    with suppress(KeyboardInterrupt):
        at_redis(work)


@click.command("show")
@click.argument("call_id")
@_json
def show_command(call_id: str, *, as_json: bool) -> None:
    """Show one call and its times; never its token, headers or body."""

    def work(client: redis.Redis) -> None:
        found = _known(client, call_id)
        _show([json.dumps(found)] if as_json else [f"{key:<13} {value}" for key, value in found.items()])

    at_redis(work)


@click.command("cancel")
@click.argument("call_id")
def cancel_command(call_id: str) -> None:
    """End a call: its waiting clients get 410, its handler is interrupted."""

    def work(client: redis.Redis) -> None:
        found = _known(client, call_id)
        if not Calls(client, found["name"]).end(call_id, Outcome.CANCELLED, "cancelled by an operator", None):
            raise ConfigurationError(f"{call_id} has ended already: {found['outcome']}")
        _show([f"{call_id} is cancelled"])

    at_redis(work)


@click.command("retry")
@click.argument("call_id")
def retry_command(call_id: str) -> None:
    """Run a function's call now that waits for its next attempt."""

    def work(client: redis.Redis) -> None:
        found = _known(client, call_id)
        if found["state"] != "delayed":
            raise ConfigurationError(
                f"{call_id} is {found['state']}: only a call that waits for its next attempt can be hurried; "
                "the request of one that has ended is not kept, send it again"
            )
        client.zadd(keys.delayed(found["name"]), {call_id: 0}, xx=True)
        _show([f"{call_id} is queued within a second"])

    at_redis(work)


@click.command("workers")
@_name
@_json
def workers_command(*, name: str | None, as_json: bool) -> None:
    """List the live worker processes: what they serve, since when, and the calls that they hold."""

    def work(client: redis.Redis) -> None:
        found = list_workers(client, name)
        _show((json.dumps(asdict(each)) for each in found) if as_json else _table(ListedWorker, found))

    at_redis(work)


def at_redis(work: Callable[[redis.Redis], None]) -> None:
    """Do something at the Redis of REDIS_URL or of this folder's `serve`; an error is one line, and 2."""
    try:
        with connect(url_here(), connections=1) as client:
            work(client)
    except AWAY as error:
        _fail(f"Redis does not answer: {error}")
    except (ConfigurationError, *ANY) as error:
        _fail(str(error))


def _fail(message: str) -> None:
    click.echo(f"wsgi-timeout: {message}", err=True)
    raise SystemExit(2)


def _known(client: redis.Redis, call_id: str) -> dict[str, Any]:
    found = history(client, call_id)
    if found is None:
        raise ConfigurationError(
            f"there is no call {call_id} (any more): a result that was delivered is not kept; "
            "`wsgi-timeout calls` lists the last ones"
        )
    return found


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(printable(line))


def _table(kind: type, items: list[Any]) -> Iterable[str]:
    columns = [each.name for each in fields(kind)]
    rows = [[column.upper().replace("_", " ") for column in columns]]
    rows += [[str(getattr(item, column)) or "-" for column in columns] for item in items]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
