"""Power cuts: Redis is killed, and its append-only file cut back to what was on disk; and what `fsync` costs.

make test-power                                                   200 cuts with durability="fsync"
make test-power ARGS='--durability server --appendfsync everysec'    the same without it
make test-power ARGS=--cost                                       latency and calls a second of each
"""

import http.client
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import click
from harness import Deployment, RedisServer, ask, preloaded, until

CLIENTS = 8
#: Seconds in which a call has its end after the last cut.
PATIENCE = 60.0


class CuttableServer(RedisServer):
    """A Valkey of which is known what is on disk."""

    def __init__(self, folder, *options):
        """Start it in a folder, which has the library too."""
        self._log = folder / "synced"
        self._options = options
        library = preloaded(Path(__file__).with_name("synced.c"), folder)
        super().__init__(folder, env={**os.environ, "LD_PRELOAD": library, "SYNCED_LOG": str(self._log)})

    def start(self):
        # What it finds is on disk.
        self._synced = {str(path): path.stat().st_size for path in self._written()}
        self._log.unlink(missing_ok=True)
        super().start("--appendfsync", "everysec", *self._options)

    def _written(self):
        return sorted(self.folder.glob("appendonlydir/*.incr.aof"))

    def cut_power(self):
        """Kill it, and take back what was not on disk; returns how many bytes that were."""
        self.client.close()
        self.process.stop(signal.SIGKILL)
        synced = dict(self._synced)
        if self._log.exists():
            for line in self._log.read_text().splitlines():
                size, _, path = line.partition(" ")
                synced[path] = int(size)
        lost = 0
        for path in self._written():
            size = synced.get(str(path), 0)
            lost += path.stat().st_size - size
            os.truncate(path, size)
        return lost


@dataclass
class Seen:
    """What clients saw, by the tag of their call."""

    #: The first answer: its status.
    first: dict = field(default_factory=dict)
    #: The last one.
    last: dict = field(default_factory=dict)

    def judged(self, runs, *, workers_died):
        """Return how many calls of each kind there were, the accepted ones by what became of them."""
        found = Counter()
        for tag, first in self.first.items():
            last, ran = self.last[tag], runs[tag]
            if ran > 1:
                found["twice"] += 1
            elif first not in {200, 202, 303}:
                found["refused, ran" if ran else "refused"] += 1
            elif last == 200 and ran == 1:
                found["once"] += 1
            elif last == 502 and workers_died:
                found["502, its worker died"] += 1
            else:
                found["lost"] += 1
                found[f"lost: {last} after {ran} runs"] += 1
        return found


def final(port, url, deadline):
    """Follow a result URL to its end; returns the status."""
    while time.monotonic() < deadline():
        try:
            answer = ask(port, url)
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
            continue
        if answer.status == 303:
            url = urlsplit(answer.location)
            url = f"{url.path}?{url.query}"
        elif answer.status == 503:
            time.sleep(0.1)
        else:
            return answer.status
    return 0


class Traffic:
    """Clients that post, and follow what they are told, until the end of a `with` block."""

    def __init__(self, port):
        self._port = port
        self._stop = threading.Event()
        self._ended = float("inf")
        self._numbers = count()
        self._threads = ThreadPoolExecutor(CLIENTS)
        self.seen = Seen()
        self.answered = 0

    def __enter__(self):
        self._futures = [self._threads.submit(self._run) for _ in range(CLIENTS)]
        return self

    def __exit__(self, *_):
        self._ended = time.monotonic() + PATIENCE
        self._stop.set()
        for future in self._futures:
            future.result()
        self._threads.shutdown()

    def _run(self):
        while not self._stop.is_set():
            tag = f"t{next(self._numbers)}"
            seconds = random.choice([0, 0, 0.05, 0.6])
            try:
                answer = ask(self._port, f"/slow?seconds={seconds}&tag={tag}", "POST", body=b"x")
                first, location = answer.status, answer.location
            except (OSError, http.client.HTTPException):
                first, location = 0, None
            self.seen.first[tag] = self.seen.last[tag] = first
            if first == 303:
                self.seen.last[tag] = final(self._port, location, lambda: self._ended)
            elif first != 200:
                time.sleep(0.05)
            self.answered += first in {200, 303}


def cut(server, site, cuts, *, workers_too=0, most_seconds=2.0):
    """Cut the power so often under traffic, and now and then of the workers too; returns what was seen."""
    lost = 0
    with Traffic(site.web.port) as traffic:
        for number in range(1, cuts + 1):
            before = traffic.answered
            until(lambda before=before: traffic.answered > before, 60, "an answer after a cut")
            time.sleep(random.uniform(0.0, most_seconds))
            lost += server.cut_power()
            if workers_too and number % workers_too == 0:
                kill(site.pool)
            server.start()
            if workers_too and number % workers_too == 0:
                site.pool = site.start_pool("--processes", "3")
    runs = Counter(line.split()[0] for line in site.runs())
    return traffic.seen.judged(runs, workers_died=bool(workers_too)), lost


def kill(pool):
    """Have all processes of a pool die at once."""
    for child in pool.descendants():
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    pool.stop(signal.SIGKILL)


@contextmanager
def deployed(appendfsync, durability, **settings):
    folder = Path(tempfile.mkdtemp(prefix="wt-power-"))
    server = CuttableServer(folder, "--appendfsync", appendfsync)
    try:
        site = Deployment(
            server,
            pool=("--processes", "3"),
            durability=durability,
            **{"wait_seconds": 0.4, "worker_wait": 10.0, **settings},
        )
        try:
            yield server, site
        finally:
            site.stop()
    finally:
        server.stop()
        shutil.rmtree(folder)


# -- what it costs


KINDS = [("everysec", "server"), ("always", "server"), ("always", "fsync"), ("everysec", "fsync")]


def latencies(port, number=15):
    """Return the seconds of requests one after the other."""
    found = []
    for _ in range(number):
        began = time.monotonic()
        assert ask(port, "/fast", "POST").status == 200
        found.append(time.monotonic() - began)
    return found


def a_second(port, clients=32, seconds=4.0):
    """Return how many requests are answered in a second, of so many clients."""
    end = time.monotonic() + seconds

    def run():
        done = 0
        while time.monotonic() < end:
            assert ask(port, "/fast", "POST").status == 200
            done += 1
        return done

    with ThreadPoolExecutor(clients) as threads:
        return sum(future.result() for future in [threads.submit(run) for _ in range(clients)]) / seconds


def costs(rounds):
    """Print latency and calls a second of each kind, measured in turns."""
    found = {kind: ([], []) for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            with deployed(*kind, wait_seconds=30.0) as (_, site):
                latencies(site.web.port, 3)
                found[kind][0].extend(latencies(site.web.port))
                found[kind][1].append(a_second(site.web.port))
    quiet, fast = (statistics.median(each) for each in found[KINDS[0]])
    click.echo("| appendfsync | durability | p50, one client | ratio | calls a second, 32 clients | ratio |")
    click.echo("|---|---|---|---|---|---|")
    for (appendfsync, durability), (seconds, rates) in found.items():
        middle, rate = statistics.median(seconds), statistics.median(rates)
        click.echo(
            f"| {appendfsync} | {durability} | {middle * 1000:.1f} ms | {middle / quiet:.1f} "
            f"| {rate:.0f} | {rate / fast:.2f} |"
        )


@click.command()
@click.option("--cuts", default=200, show_default=True)
@click.option("--appendfsync", default="always", show_default=True)
@click.option("--durability", default="fsync", show_default=True)
@click.option(
    "--workers-too", default=5, show_default=True, help="At each such cut workers die too; 0: never."
)
@click.option("--most-seconds", default=2.0, show_default=True, help="Seconds of service between two cuts.")
@click.option("--cost", is_flag=True, help="Measure latency and calls a second instead.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of that.")
def main(cuts, appendfsync, durability, workers_too, most_seconds, cost, rounds):
    """Cut the power under traffic, and count what became of the calls; fails for one lost, or run twice."""
    if cost:
        costs(rounds)
        return
    with deployed(appendfsync, durability) as (server, site):
        found, lost = cut(server, site, cuts, workers_too=workers_too, most_seconds=most_seconds)
    click.echo(
        f"{cuts} cuts, appendfsync {appendfsync}, durability {durability}: {lost} bytes were not on disk"
    )
    for what, number in sorted(found.items()):
        click.echo(f"  {what}: {number}")
    sys.exit(found["lost"] + found["twice"] > 0)


if __name__ == "__main__":
    main()
