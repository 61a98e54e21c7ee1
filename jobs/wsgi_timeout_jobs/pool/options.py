"""The options of a pool, from its command line."""

from __future__ import annotations

from dataclasses import dataclass

from wsgi_timeout_jobs.process.gunicorn_file import GunicornFile


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How many processes and threads, and when to replace them."""

    processes: int = 1
    threads: int = 1
    #: Calls after which a process is replaced; 0: never.
    max_requests: int = 0
    #: Bytes of memory after which an idle process is replaced; 0: never.
    max_memory: int = 0
    #: Seconds in which running calls may end after SIGTERM.
    graceful_timeout: float = 30.0
    reload: bool = False
    #: The interpreter that runs the app; None: this one.
    python: str | None = None
    #: A gunicorn configuration whose hooks are called for our processes; None: there is none.
    gunicorn: GunicornFile | None = None
    #: Processes for each queue of functions that the target has.
    function_processes: int = 1
    #: For each queue: processes that have loaded the target and stand by, to replace others.
    spare: int = 0
    #: The port of the metrics; None: there is none.
    metrics_port: int | None = None
    #: A pipe into which the pool writes the target's name when a first child has loaded it; -1: none.
    ready_fd: int = -1
