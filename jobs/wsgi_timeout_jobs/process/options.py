"""What a pool tells a worker process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a pool tells a worker process."""

    #: The worker's own name, unlike any other's.
    worker: str
    url: str
    target: str
    #: The target's name; None: it may name itself.
    name: str | None
    #: Empty for web calls, else a queue of functions.
    queue: str
    #: How many worker processes of this queue its pool runs.
    processes: int
    pool_inbox: str
    #: Calls after which the process ends; 0: never.
    max_requests: int
    #: Seconds after which a worker of another target, seen all the time, is alive.
    patience: float
    #: Seconds without a renewal of its lease after which a worker is given up.
    lease_seconds: float
    #: A pipe that tells a spare process to take calls; -1: it takes them at once.
    turn_fd: int = -1
    #: The interpreter that runs the app; None: this one.
    python: str | None = None
    reload: bool = False
    #: Called with the loaded target; None: nobody is.
    loaded: Callable[[Any], None] | None = None
