"""What it costs to run the app under an interpreter of its own: `--python`."""

import statistics
import sys
from contextlib import ExitStack

import contestants
import load
from rows import MIB, Row, detail, memory

#: What is compared, and what of it is said; see `hops.py`. The Python is the same for all.
WHAT = {
    "--python": "--python",
    "bare": "a bare hop to another process, the app in the worker",
    "least": "the least code that runs the app in another process",
}


def other_python(server, quick):
    """Latency at one client and memory of the worker's processes, with `--python` and without, in turns."""
    # Many short turns, each compared with the one before it: whatever else the machine does meets all.
    rounds, count = (25, 30) if quick else (60, 50)
    options = ("--processes", "1", "--python", sys.executable)
    with ExitStack() as running:
        all_ = {
            "ours": running.enter_context(contestants.ours(server)),
            "--python": running.enter_context(contestants.ours(server, pool=options, name="elsewhere")),
            "bare": running.enter_context(contestants.ours(server, app="hops:bare", name="bare")),
            "least": running.enter_context(contestants.ours(server, app="hops:least", name="least")),
        }
        times = {name: [] for name in all_}
        for _ in range(rounds):
            for name, one in all_.items():
                times[name].append(1e6 * load.latency(one.port, count))
        sizes = {name: [memory(all_[name].worker) / MIB] for name in ("ours", "--python")}
    size = statistics.median(sizes["--python"]) - statistics.median(sizes["ours"])
    return [
        *(_added(name, times, 150 if name == "--python" else None) for name in WHAT),
        Row(
            "memory added by --python to a worker process",
            f"{size:.1f} MiB",
            "25 MiB at most",
            size <= 25,
            [detail(name, values, "MiB") for name, values in sizes.items()],
        ),
    ]


def _added(name, times, goal):
    cost = statistics.median(b - a for a, b in zip(times["ours"], times[name], strict=True))
    return Row(
        f"added to a call, 1 client, by {WHAT[name]}",
        f"{cost:.0f} us",
        f"{goal} us at most" if goal else "none",
        cost <= goal if goal else None,
        [detail(each, times[each], "us") for each in ("ours", name)],
    )


ROWS = (other_python,)
