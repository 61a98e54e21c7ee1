"""Worker processes: one that was interrupted is replaced, several share a queue; and our import."""

import http.client
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

import contestants
import load
import psutil
import redis
from harness import environment, until
from rows import Row, at_once, detail


def interrupted(server, quick):
    """The next call after a handler ran into its timeout, of an app that takes 3 s to import."""
    kinds = {
        "two processes": ("--processes", "2"),
        "one and a spare": ("--processes", "1", "--spare", "1"),
    }
    starts = [
        contestants.ours(server, app="slow_import:app", pool=options, timeout=1, name=f"slow{number}")
        for number, options in enumerate(kinds.values())
    ]
    with at_once(starts) as sites:
        rounds = []
        for _ in range(1 if quick else 5):
            time.sleep(5)  # those that were started last are to have loaded the app
            rounds.append([_after_interrupt(one) for one in sites])
    rows = []
    for what, *times in zip(kinds, *rounds, strict=True):
        middle = statistics.median(times)
        rows.append(
            Row(
                f"the next call after an interrupt, 67 MB and 3 s of import, {what}",
                f"{middle:.0f} ms",
                "50 ms at most",
                middle <= 50,
                [detail("ours", times, "ms")],
            )
        )
    return rows


def _after_interrupt(one):
    load.latency(one.port, 20)
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=60)
    connection.request("GET", "/sleep")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 504, answer.status
    return 1000 * load.latency(one.port, 1)


def shared(server, quick):
    """Throughput at 32 clients and CPU time a call, with one, two and four worker processes in turns."""
    rounds, seconds = (2, 1) if quick else (5, 2)
    counts = (1, 2, 4)
    rates, cpu = {count: [] for count in counts}, {count: [] for count in counts}
    with ExitStack() as running:
        sites = {
            count: running.enter_context(
                contestants.ours(server, pool=("--processes", str(count)), name=f"shared{count}")
            )
            for count in counts
        }
        client = redis.Redis.from_url(server.url)
        for count in counts:
            leases = f"wt:leases:shared{count}"
            until(lambda leases=leases, count=count: client.hlen(leases) == count, 30, "all processes")
        for _ in range(rounds):
            for count, one in sites.items():
                before = _cpu(one)
                rate = load.throughput(one.port, 32, seconds)
                rates[count].append(rate)
                cpu[count].append(1e6 * (_cpu(one) - before) / (rate * seconds))
    share = statistics.median(rates[4]) / statistics.median(rates[1])
    spent = statistics.median(cpu[4]) / statistics.median(cpu[1])
    return [
        Row(
            "requests/s at 32 clients: four worker processes / one",
            f"{share:.2f}",
            "0.9 at least",
            share >= 0.9,
            [detail(f"{count} processes", values, "/s") for count, values in rates.items()],
        ),
        Row(
            "CPU time a call in web and workers: four worker processes / one",
            f"{spent:.2f}",
            "none",
            None,
            [detail(f"{count} processes", values, "us") for count, values in cpu.items()],
        ),
    ]


def _cpu(one):
    """Return the seconds of CPU that web and workers have used."""
    family = [psutil.Process(part.pid) for part in (one.web, one.worker)]
    both = [*family, *(child for part in family for child in part.children(recursive=True))]
    return sum(sum(process.cpu_times()[:2]) for process in both)


def imported(server, quick):
    """CPU time of `from wsgi_timeout import RequestTimeouts` in a process that has imported Flask."""
    del server
    code = (
        "import time; start = time.process_time(); import flask; middle = time.process_time()\n"
        "from wsgi_timeout import RequestTimeouts\n"
        "print(middle - start, time.process_time() - middle)"
    )
    flask, ours = [], []
    for _ in range(3 if quick else 9):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
        first, second = map(float, done.stdout.split())
        flask.append(1000 * first)
        ours.append(1000 * second)
    middle = statistics.median(ours)
    return [
        Row(
            "import of wsgi_timeout's extension, beyond Flask's own",
            f"{middle:.0f} ms",
            "60 ms at most",
            middle <= 60,
            [detail("Flask", flask, "ms"), detail("ours", ours, "ms")],
        )
    ]


ROWS = (interrupted, shared, imported)
