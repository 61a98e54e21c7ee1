"""Rows of large bodies each way, against what Redis alone passes in the same chunks."""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import contestants
import load
import redis
from rows import KIB, MIB, Row, detail, memory


def bodies(server, quick):
    """Large bodies each way, against what Redis alone passes in the same chunks."""
    # More than `max_spooled_body`, which would lie in Redis before its call begins.
    size, rounds = (128 * MIB, 1) if quick else (1024 * MIB, 5)
    rates = {"Redis alone": [], "up": [], "down": []}
    client = redis.Redis.from_url(server.url)
    with contestants.ours(server, app="held:app", max_request_body=4 << 30) as one:
        load.latency(one.port, 20)
        family = (one.web, one.worker)
        idle, used = sum(map(memory, family)), client.info("memory")["used_memory"]
        grown = 0
        for _ in range(rounds):
            with _Peak(lambda: sum(map(memory, family)) + client.info("memory")["used_memory"]) as peak:
                rates["up"].append(size / MIB / load.upload(one.port, "/hash", size))
                rates["down"].append(size / MIB / load.download(one.port, f"/bytes/{size}", size))
            grown = max(grown, (peak.value - idle - used) / 1e6)
            rates["Redis alone"].append(_redis_alone(server, size))
    alone = statistics.median(rates["Redis alone"])
    rows = [
        Row(
            f"{size // MIB} MiB {way}: ours / Redis alone in the same chunks",
            f"{statistics.median(rates[way]) / alone:.2f}",
            f"{share} at least",
            statistics.median(rates[way]) >= share * alone,
            [
                detail("ours", rates[way], "MiB/s"),
                detail("Redis alone", rates["Redis alone"], "MiB/s"),
            ],
        )
        for way, share in (("up", 0.8), ("down", 0.9))
    ]
    what = "growth of memory meanwhile: web, worker and Redis, summed"
    return [*rows, Row(what, f"{grown:.0f} MB", "40 MB at most", grown <= 40)]


def _redis_alone(server, size):
    """Return the MiB/s of one process that writes chunks and another that takes them."""
    code = (
        "import sys, redis; client = redis.Redis.from_url(sys.argv[1]); chunk = bytes(256 * 1024)\n"
        "for _ in range(int(sys.argv[2])):\n"
        "    if sys.argv[3] == 'write':\n"
        "        client.rpush('alone', chunk)\n"
        "    else:\n"
        "        client.blpop(['alone'], 10)\n"
    )
    started = time.monotonic()
    command = [sys.executable, "-c", code, server.url, str(size // (256 * KIB))]
    running = [subprocess.Popen([*command, what]) for what in ("write", "take")]
    for process in running:
        assert process.wait() == 0
    return size / MIB / (time.monotonic() - started)


class _Peak:
    """The largest of what a function returns while it is on."""

    def __init__(self, measure: Callable[[], int]):
        self.value = 0
        self._measure = measure
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def _run(self):
        while not self._done.wait(0.05):
            self.value = max(self.value, self._measure())

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()


ROWS = (bodies,)
