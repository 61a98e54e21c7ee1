"""`wsgi-timeout calls --watch`: queued, running and recently ended calls, updated every second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import redis

from wsgi_timeout.http.printable import printable
from wsgi_timeout.serving.command_parts import columns_of, row_of, table
from wsgi_timeout.store.call_list import ListedCall, list_calls
from wsgi_timeout.store.failed_calls import names
from wsgi_timeout.store.gauges import of_name
from wsgi_timeout.store.pauses import is_paused

_SECONDS = 1.0
#: The counts of a name above the table, each with its word.
_COUNTS = {
    "queued_calls": "queued",
    "running_calls": "running",
    "delayed_calls": "delayed",
    "workers": "workers",
}
_COLORS = {"queued": "yellow", "running": "cyan", "delayed": "magenta"}


def watch(client: redis.Redis, name: str | None, states: tuple[str, ...], limit: int) -> None:
    """Show calls until Ctrl-C, in full screen if `rich` is installed; raises what redis-py raises."""
    with _screen() as draw:
        while True:
            listed = list_calls(client, name, states, limit)
            draw(list(_heads(client, name)), listed)
            time.sleep(_SECONDS)


def _heads(client: redis.Redis, name: str | None) -> Iterator[str]:
    for each in [name] if name else names(client):
        gauges = {metric: value for metric, _, value in of_name(client, each)}
        counts = [f"{gauges.get(metric, 0):.0f} {word}" for metric, word in _COUNTS.items()]
        head = f"first waits {gauges.get('queue_head_age_seconds', 0):.0f} s"
        paused = ["PAUSED"] if is_paused(client, each) else []
        yield f"queue wt:{each}: " + ", ".join([*counts, head, *paused])


@contextmanager
def _screen() -> Iterator[Callable[[list[str], list[ListedCall]], None]]:
    try:
        from rich.live import Live  # noqa: PLC0415 - no dependency of a deployment
    except ImportError:
        yield _plain
        return
    with Live(screen=True, auto_refresh=False) as live:
        yield lambda heads, calls: live.update(_rich(heads, calls), refresh=True)


def _plain(heads: list[str], calls: list[ListedCall]) -> None:
    click.clear()
    for line in (*heads, *table(ListedCall, calls)):
        click.echo(printable(line))


def _rich(heads: list[str], calls: list[ListedCall]) -> Any:
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = Table(expand=True, box=None, header_style="bold")
    for column in columns_of(ListedCall):
        shown.add_column(column, overflow="ellipsis", no_wrap=True)
    for call in calls:
        color = "red" if call.outcome not in {"", "done"} else _COLORS.get(call.state, "")
        shown.add_row(*(Text(printable(word)) for word in row_of(call)), style=color)
    return Group(*(Text(printable(head), style="bold") for head in heads), shown)
