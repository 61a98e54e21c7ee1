"""One row of the table, and what most rows measure with."""

import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import load
import psutil

KIB, MIB = 1024, 1024 * 1024
GEVENT_OURS = (
    *("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker"),
    *("--worker-connections", "12000", "--backlog", "8192"),
)


@dataclass
class Row:
    """One line of the table: a figure, the goal for it, and whether it was met."""

    what: str
    figure: str
    goal: str
    met: bool | None
    #: Figures behind it: contestant, median, smallest, largest, unit.
    details: list[tuple[str, float, float, float, str]] = field(default_factory=list)

    @property
    def unsure(self) -> bool:
        """Whether its rounds differ by more than its figure from its goal; False if there is one round."""
        figure, goal = _number(self.figure), _number(self.goal)
        if self.met is None or figure is None or goal is None:
            return False
        spreads = [(most - least) / 2 / middle for _, middle, least, most, _ in self.details if middle]
        return max(spreads, default=0) * figure > abs(figure - goal)

    @property
    def verdict(self) -> str:
        """What the table says of its goal."""
        if self.met is None:
            return ""
        spread = ", within the spread of its rounds" if self.unsure else ""
        return ("met" if self.met else "NOT met") + spread


def _number(words):
    found = re.search(r"\d+(\.\d+)?", words)
    return float(found[0]) if found else None


def detail(name, values, unit):
    return (name, statistics.median(values), min(values), max(values), unit)


@contextmanager
def at_once(managers):
    """Enter context managers at the same time, since to start processes is mostly to wait for them."""
    with ExitStack() as running, ThreadPoolExecutor(len(managers)) as threads:
        yield list(threads.map(running.enter_context, managers))


def memory(process):
    """Return the bytes that the children of a process do not share with anybody."""
    children = psutil.Process(process.pid).children(recursive=True)
    return sum(child.memory_full_info().uss for child in children)


def commands(client):
    """Return how many commands Redis has executed, those inside of scripts too."""
    return sum(stats["calls"] for stats in client.info("commandstats").values())


def commands_a_call(client, port, count, headers=None):
    """Return how many a request executes, without those of as much idle time."""
    start, began = commands(client), time.monotonic()
    load.latency(port, count, headers=headers)
    end, seconds = commands(client), time.monotonic() - began
    time.sleep(seconds)
    return (end - start - (commands(client) - end)) / count
