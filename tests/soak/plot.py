"""What a soaked site takes while it runs: memory, descriptors, threads, keys and log, sampled and drawn."""

import contextlib
import os
import threading
import time

import psutil
import redis

from soak.site import TARGETS
from wsgi_timeout.store import keys

SECONDS = 5.0
MIB = 2**20
#: What is drawn, each in a panel of its own.
PANELS = {
    "memory": "memory of all processes, MiB",
    "descriptors": "open files",
    "threads": "threads",
    "redis": "Redis' memory, MiB",
    "keys": "Redis' keys",
    "tombstones": "tombstones in two of these keys",
    "log": "log, KiB a minute",
    "load": "load of the machine",
}
#: Of one panel, in pixels.
WIDTH, HEIGHT, MARGIN = 330, 130, 45


class Sampler(threading.Thread):
    """Looks every few seconds until it is told to stop."""

    def __init__(self, site):
        super().__init__(name="sampler", daemon=True)
        self.samples = []
        self._site = site
        self._stopped = threading.Event()
        self._began = time.monotonic()
        #: The log of each process that there was, in bytes.
        self._logs = {}

    def run(self):
        """Sample; while something is away there is no sample."""
        while not self._stopped.wait(SECONDS):
            with contextlib.suppress(psutil.Error, redis.exceptions.RedisError, OSError, ValueError):
                self.samples.append(self._sample())

    def stop(self):
        self._stopped.set()
        self.join()

    def _sample(self):
        parents = [*self._site.webs, *self._site.pools]
        for parent in parents:
            self._logs[parent.pid] = len(parent.output)
        memory = descriptors = threads = 0
        for process in [psutil.Process(parent.pid) for parent in parents]:
            for one in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    memory += one.memory_info().rss
                    descriptors += one.num_fds()
                    threads += one.num_threads()
        client = self._site.server.client
        return {
            "seconds": time.monotonic() - self._began,
            "memory": memory / MIB,
            "descriptors": descriptors,
            "threads": threads,
            "redis": client.info()["used_memory"] / MIB,
            "keys": client.dbsize(),
            "tombstones": sum(client.hlen(keys.tombstones(name)) for name in set(TARGETS)),
            "log": sum(self._logs.values()) / 1024,
            "load": os.getloadavg()[0],
        }


def draw(samples, path, title):
    """Write samples as an SVG of a panel each from zero."""
    for sample, before in zip(reversed(samples[1:]), reversed(samples[:-1]), strict=True):
        spent = sample["seconds"] - before["seconds"]
        sample["log"] = 60 * (sample["log"] - before["log"]) / spent
    panels = [
        _panel(samples[1:], name, told, (number % 2) * (WIDTH + 2 * MARGIN), (number // 2) * (HEIGHT + 60))
        for number, (name, told) in enumerate(PANELS.items())
    ]
    size = f"0 0 {2 * (WIDTH + 2 * MARGIN)} {-(-len(PANELS) // 2) * (HEIGHT + 60) + 10}"
    style = "text{font:12px sans-serif;fill:#555}path{fill:none;stroke:#2563eb}line{stroke:#bbb}"
    begin = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}"><title>{title}</title>'
    path.write_text(f"{begin}<style>{style}</style>" + "\n".join(panels) + "</svg>\n")


def _panel(samples, name, told, left, top):
    most = max(sample[name] for sample in samples) or 1
    last = samples[-1]["seconds"]
    x0, y0 = left + MARGIN, top + 30 + HEIGHT
    points = [
        f"{x0 + WIDTH * sample['seconds'] / last:.1f},{y0 - HEIGHT * sample[name] / most:.1f}"
        for sample in samples
    ]
    return (
        f'<text x="{x0}" y="{top + 20}">{told}: at most {most:.0f}</text>'
        f'<line x1="{x0}" y1="{y0}" x2="{x0 + WIDTH}" y2="{y0}"/>'
        f'<line x1="{x0}" y1="{y0 - HEIGHT}" x2="{x0}" y2="{y0}"/>'
        f'<text x="{x0}" y="{y0 + 15}">0</text>'
        f'<text x="{x0 + WIDTH}" y="{y0 + 15}" text-anchor="end">{last / 60:.0f} min</text>'
        f'<path d="M{" L".join(points)}"/>'
    )


def rise(samples):
    """Return by how much each rose from the second quarter to the last one, as parts of the former."""
    quarter = len(samples) // 4
    found = {}
    for name in PANELS.keys() - {"log", "load"}:
        early, late = (
            sum(sample[name] for sample in part) / max(1, len(part))
            for part in (samples[quarter : 2 * quarter], samples[-quarter:])
        )
        found[name] = late / early - 1 if early else 0.0
    return found
