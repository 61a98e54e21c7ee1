"""The seconds of docs/reliability.md: runs the tests that note some, and prints what was seen.

make test-faults-20                                     every one of them, twenty times
make test-faults-20 ARGS='--times 4 -- -k frozen'       more words for pytest
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import click

TESTS = Path(__file__).parent.parent
#: Where a run under `measure` collects its seconds; empty: nowhere.
FILE = os.environ.get("FAULTS_SEEN", "")


def note(item, what, seconds):
    """Print the seconds that a test has seen, and collect them."""
    print(line(f"{item.name}: {what}", seconds))  # noqa: T201 - shown by `pytest -s`
    if FILE:
        with Path(FILE).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([item.path.name, item.name, what, list(seconds)]) + "\n")


def line(what, seconds):
    middle, worst = statistics.median(seconds), max(seconds)
    return f"{what}: {middle:.2f} / {worst:.2f} of {len(seconds)}"


@click.command()
@click.option("--times", default=20, show_default=True, help="How often each test is run.")
@click.option("--at-once", default=4, show_default=True, help="How many runs go side by side.")
@click.option("--file", type=click.Path(), help="Where seconds are kept, and added to those of earlier runs.")
@click.argument("words", nargs=-1)
def main(times, at_once, file, words):
    """Run the tests that measure; print median, worst and number for each that they have seen."""
    modules = [path for path in sorted(TESTS.rglob("test_*.py")) if " seen(" in path.read_text("utf-8")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", ""]
    # Each runs them all: most wait more than they compute.
    command += ["-n", str(at_once), "--dist", "each", *map(str, modules), *words]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        seen = file or f"{folder}/seen"
        for done in range(0, times, at_once):
            click.echo(f"{done} of {times}")
            run = subprocess.run(command, env={**os.environ, "FAULTS_SEEN": seen}, check=False)
            failed |= run.returncode != 0
        report(seen)
    sys.exit(failed)


def report(file):
    found = defaultdict(list)
    for module, test, what, seconds in map(json.loads, Path(file).read_text(encoding="utf-8").splitlines()):
        found[f"{module} {test}: {what}"] += seconds
    for what in sorted(found):
        click.echo(line(what, found[what]))


if __name__ == "__main__":
    main()
