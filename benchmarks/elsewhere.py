"""What it costs to run the app under an interpreter of its own: `--python`."""

import statistics
import sys
from contextlib import ExitStack

import contestants
import load
from rows import MIB, Row, detail, memory


def other_python(server, quick):
    """Latency at one client and memory of the worker's processes, with `--python` and without, in turns."""
    # Many short turns, each compared with the one before it: whatever else the machine does meets both.
    rounds, count = (25, 30) if quick else (60, 75)
    options = ("--processes", "1", "--python", sys.executable)
    with ExitStack() as running:
        both = {
            "ours": running.enter_context(contestants.ours(server)),
            "--python": running.enter_context(contestants.ours(server, pool=options, name="elsewhere")),
        }
        times = {name: [] for name in both}
        for _ in range(rounds):
            for name, one in both.items():
                times[name].append(1e6 * load.latency(one.port, count))
        sizes = {name: [memory(one.worker) / MIB] for name, one in both.items()}
    cost = statistics.median(b - a for a, b in zip(times["ours"], times["--python"], strict=True))
    size = statistics.median(sizes["--python"]) - statistics.median(sizes["ours"])
    return [
        Row(
            "added by --python to a call, 1 client",
            f"{cost:.0f} us",
            "150 us at most",
            cost <= 150,
            [detail(name, values, "us") for name, values in times.items()],
        ),
        Row(
            "memory added by --python to a worker process",
            f"{size:.1f} MiB",
            "25 MiB at most",
            size <= 25,
            [detail(name, values, "MiB") for name, values in sizes.items()],
        ),
    ]


ROWS = (other_python,)
