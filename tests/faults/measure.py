"""The seconds of docs/reliability.md: runs the tests that note some, in rounds, and prints what was seen.

make test-faults-20                                     every one of them, twenty times
make test-faults-20 ARGS='--rounds 5 -- -k frozen'      more words for pytest
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
@click.option("--rounds", default=20, show_default=True, help="How often each test is run.")
@click.argument("words", nargs=-1)
def main(rounds, words):
    """Run the tests that measure, in rounds; print median, worst and number for each that they have seen."""
    failed = 0
    with tempfile.NamedTemporaryFile("w+", prefix="wt-seen-") as seen:
        for number in range(rounds):
            click.echo(f"round {number + 1} of {rounds}")
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2"]
            command += ["--dist", "loadscope", str(Path(__file__).parent), *words]
            run = subprocess.run(command, env={**os.environ, "FAULTS_SEEN": seen.name}, check=False)
            failed += run.returncode != 0
            report(seen.name)
    sys.exit(failed)


def report(file):
    found = defaultdict(list)
    for module, test, what, seconds in map(json.loads, Path(file).read_text(encoding="utf-8").splitlines()):
        found[f"{module} {test}: {what}"] += seconds
    for what in sorted(found):
        click.echo(line(what, found[what]))


if __name__ == "__main__":
    main()
