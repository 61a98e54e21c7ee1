"""`wsgi-timeout calls --watch`: queued, running and recently ended calls, updated every second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click
import redis

from wsgi_timeout.http.printable import printable
from wsgi_timeout.serving.command_parts import columns_of, row_of
from wsgi_timeout.store.call_list import ListedCall
from wsgi_timeout.store.failed_calls import FailedCall, aligned, failed_rows, names
from wsgi_timeout.store.gauges import of_name
from wsgi_timeout.store.pauses import is_paused

_SECONDS = 1.0
#: Characters of a column that is not shortened.
_SHORT = 9
#: The counts of a name above the table, each with its word.
_COUNTS = {
    "queued_calls": "queued",
    "running_calls": "running",
    "delayed_calls": "delayed",
    "workers": "workers",
}
_COLORS = {"queued": "yellow", "running": "cyan", "delayed": "magenta"}


class Shown(NamedTuple):
    """One look: a table's heads and rows, and the color of each row, for `rich`."""

    heads: list[str]
    rows: list[list[str]]
    colors: list[str]


def watch(client: redis.Redis, name: str | None, look: Callable[[], Shown]) -> None:
    """Show what `look` returns until Ctrl-C, in full screen if `rich` is installed; raises as redis-py."""
    with _screen() as draw:
        while True:
            shown = look()
            draw(list(_summaries(client, name)), shown)
            time.sleep(_SECONDS)


def of_calls(calls: list[ListedCall]) -> Shown:
    """Return what is shown of a list of calls."""
    colors = ["red" if call.outcome not in {"", "done"} else _COLORS.get(call.state, "") for call in calls]
    return Shown(columns_of(ListedCall), [row_of(call) for call in calls], colors)


def of_failed(calls: list[FailedCall]) -> Shown:
    """Return what is shown of failed calls."""
    heads, *rows = failed_rows(calls)
    return Shown(heads, rows, ["red"] * len(rows))


def _summaries(client: redis.Redis, name: str | None) -> Iterator[str]:
    for each in [name] if name else names(client):
        gauges = {metric: value for metric, _, value in of_name(client, each)}
        counts = [f"{gauges.get(metric, 0):.0f} {word}" for metric, word in _COUNTS.items()]
        head = f"first waits {gauges.get('queue_head_age_seconds', 0):.0f} s"
        paused = ["PAUSED"] if is_paused(client, each) else []
        yield f"queue wt:{each}: " + ", ".join([*counts, head, *paused])


@contextmanager
def _screen() -> Iterator[Callable[[list[str], Shown], None]]:
    try:
        from rich.live import Live  # noqa: PLC0415 - no dependency of a deployment
    except ImportError:
        yield _plain
        return
    with Live(screen=True, auto_refresh=False) as live:
        yield lambda summaries, shown: live.update(_rich(summaries, shown), refresh=True)


def _plain(summaries: list[str], shown: Shown) -> None:
    click.clear()
    for line in (*summaries, *aligned([shown.heads, *shown.rows])):
        click.echo(printable(line))


def _rich(summaries: list[str], shown: Shown) -> Any:
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(expand=True, box=None, header_style="bold")
    # A narrow terminal has no room for columns in which nothing stands. Ids are needed whole, and what is
    # short; the others share what is left.
    told = [at for at in range(len(shown.heads)) if any(row[at] != "-" for row in shown.rows)]
    for at in told:
        longest = max(len(row[at]) for row in shown.rows)
        whole = longest if at == 0 or longest <= _SHORT else None
        table.add_column(shown.heads[at], overflow="ellipsis", no_wrap=True, min_width=whole)
    for row, color in zip(shown.rows, shown.colors, strict=True):
        table.add_row(*(Text(printable(row[at])) for at in told), style=color)
    return Group(*(Text(printable(line), style="bold") for line in summaries), table)
