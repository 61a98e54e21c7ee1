"""The options of a worker process, from its pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wsgi_timeout_jobs.process.cookie_table import CookieTable


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of a worker process."""

    #: The worker's name, which is unique.
    worker: str
    url: str
    target: str
    #: The target's name; None: the target may give itself one.
    name: str | None
    #: Empty for web calls, else a queue of functions.
    queue: str
    #: How many worker processes of this queue its pool runs.
    processes: int
    pool_pid: int
    pool_inbox: str
    #: Calls after which the process ends; 0: never.
    max_requests: int
    #: Seconds for which a worker of another app must be seen under the same name before this one refuses.
    patience: float
    #: Seconds without a renewed lease after which a worker counts as dead.
    lease_seconds: float
    #: A pipe that tells a spare process to take calls; -1: it takes them at once.
    turn_fd: int = -1
    #: The interpreter that runs the app; None: this one.
    python: str | None = None
    reload: bool = False
    #: Called with the loaded target; None: nothing is called.
    loaded: Callable[[Any], None] | None = None
    #: The cookies that the processes of the pool set; None: there is one process.
    cookies: CookieTable | None = None
