"""The commands that look at a deployment: calls, show, workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict

import click
import redis

from wsgi_timeout.serving.command_parts import (
    at_redis,
    duration,
    json_option,
    known,
    name_option,
    show,
    table,
)
from wsgi_timeout.serving.watch import of_calls, of_failed
from wsgi_timeout.serving.watch import watch as keep_showing
from wsgi_timeout.store import rq_state
from wsgi_timeout.store.call_list import STATES, ListedCall, list_calls
from wsgi_timeout.store.failed_calls import aligned, failed_calls, failed_rows, names
from wsgi_timeout.store.pauses import is_paused
from wsgi_timeout.store.worker_list import ListedWorker, list_workers


@click.command("calls")
@click.option("--failed", is_flag=True, help="Only those that ended otherwise than done, and why.")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only those in this state.")
@name_option
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="So many of each state and name; of the ended 1000 are kept.",
)
@click.option("--watch", is_flag=True, help="Show them anew every second, until Ctrl-C.")
@json_option
def calls_command(
    *, failed: bool, states: tuple[str, ...], name: str | None, limit: int, watch: bool, as_json: bool
) -> None:
    """List the calls at REDIS_URL, or of the `serve` that runs in this folder.

    Ended ones are kept for 7 days.
    """

    def work(client: redis.Redis) -> None:
        if failed and watch:
            keep_showing(client, name, lambda: of_failed(failed_calls(client, name, limit)))
        elif failed:
            found = failed_calls(client, name, limit)
            lines = aligned(failed_rows(found))
            show((json.dumps(asdict(call)) for call in found) if as_json else lines)
        elif watch:
            keep_showing(client, name, lambda: of_calls(list_calls(client, name, states or STATES, limit)))
        else:
            listed = list_calls(client, name, states or STATES, limit)
            show((json.dumps(asdict(call)) for call in listed) if as_json else table(ListedCall, listed))
            for told in (*_pauses(client, name), *_not_shown(client, name, states, limit)):
                click.echo(told, err=True)

    if watch and as_json:
        raise click.UsageError(
            "--watch shows a table: leave out --json, or ask again and again without --watch"
        )
    with suppress(KeyboardInterrupt):
        at_redis(work)


def _pauses(client: redis.Redis, name: str | None) -> Iterator[str]:
    for each in [name] if name else names(client):
        if is_paused(client, each):
            base = each.partition(":")[0]
            yield f"queue wt:{each} is paused: `wsgi-timeout resume {base}`, or `rq resume`, ends that"


def _not_shown(client: redis.Redis, name: str | None, states: tuple[str, ...], limit: int) -> Iterator[str]:
    there = names(client)
    if name and name not in there:
        yield f"no worker has ever served {name!r} here: {', '.join(there) or 'no name'} is known"
    for each in [name] if name else there:
        queued = client.llen(rq_state.queue_key(each))
        if queued > limit and "queued" in (states or STATES):
            yield f"queue wt:{each}: {queued} calls are queued, the first {limit} are shown (--limit)"


@click.command("show")
@click.argument("call_id")
@json_option
def show_command(call_id: str, *, as_json: bool) -> None:
    """Show one call and its times; never its token, headers or body."""

    def work(client: redis.Redis) -> None:
        found = known(client, call_id)
        if as_json:
            show([json.dumps(found)])
        else:
            found |= {key: duration(found[key]) for key in ("age", "queued_for")}
            show(line for key, value in found.items() for line in _lines(key, str(value)))

    at_redis(work)


def _lines(key: str, value: str) -> Iterator[str]:
    """Yield a value beside its key, the further lines of a traceback below it."""
    first, *further = value.splitlines() or [""]
    yield f"{key:<13} {first}".rstrip()
    yield from (f"{'':<13} {line}" for line in further)


@click.command("workers")
@name_option
@json_option
def workers_command(*, name: str | None, as_json: bool) -> None:
    """List the live worker processes: what they serve, since when, and the calls that they hold."""

    def work(client: redis.Redis) -> None:
        found = list_workers(client, name)
        show((json.dumps(asdict(each)) for each in found) if as_json else table(ListedWorker, found))

    at_redis(work)
