"""Calls the hooks of a gunicorn configuration file for our worker processes, where gunicorn would."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from wsgi_timeout_jobs.process.gunicorn_file import GunicornFile

log = logging.getLogger("wsgi_timeout.worker")


class _App:
    """Stands for gunicorn's application, as hooks see it: `worker.app`."""

    def __init__(self, cfg: Any, target: str) -> None:
        self.cfg = cfg
        self.app_uri = target
        #: The loaded target; None before.
        self.callable: Any = None

    def wsgi(self) -> Any:
        return self.callable


class _Server:
    """Stands for gunicorn's arbiter, as hooks see it: `server`."""

    def __init__(self, cfg: Any, app: _App, processes: int) -> None:
        self.cfg = cfg
        self.app = app
        self.log = log
        self.pid = os.getpid()
        self.num_workers = processes
        self.worker_age = 0
        self.address: list[Any] = []
        self.LISTENERS: list[Any] = []
        #: The live workers by pid.
        self.WORKERS: dict[int, HookedWorker] = {}


class HookedWorker:
    """Stands for a worker, as hooks see it: has the attributes of gunicorn's worker that they use."""

    def __init__(self, server: _Server, counts: Callable[[], tuple[int, int]]) -> None:
        """Set it up; `counts` returns how many of its calls have succeeded, and how many have failed."""
        self._counts = counts
        self._server = server
        self.age = server.worker_age
        #: None until it is forked.
        self.pid: int | None = None
        self.ppid = server.pid
        self.cfg = server.cfg
        self.app = server.app
        self.log = server.log
        #: The loaded target; None before.
        self.wsgi: Any = None
        self.timeout = server.cfg.timeout
        self.max_requests = server.cfg.max_requests
        self.sockets: list[Any] = []
        self.alive = True
        self.aborted = False
        self.booted = False

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"

    @property
    def nr(self) -> int:
        """How many calls it has run."""
        return sum(self._counts())

    def loaded(self, app: Any) -> None:
        """Set the loaded target, and call `post_worker_init`; raises what that raises."""
        self.wsgi = self.app.callable = app
        self.cfg.post_worker_init(self)
        self.booted = True

    @contextmanager
    def living(self) -> Iterator[None]:
        """In the worker's process: call `post_fork` before the `with` block, and `worker_exit` after it."""
        self.pid, self.ppid = os.getpid(), os.getppid()
        self.cfg.post_fork(self._server, self)
        try:
            yield
        finally:
            if self.pid == os.getpid():  # not in processes that a handler forked
                self.alive = False
                self.cfg.worker_exit(self._server, self)


class GunicornHooks:
    """The hooks of one pool."""

    def __init__(self, file: GunicornFile, target: str, processes: int) -> None:
        self._server = _Server(file.cfg, _App(file.cfg, target), processes)

    def new_worker(self, counts: Callable[[], tuple[int, int]]) -> HookedWorker:
        """Return the hooks' `worker` for a process that is about to be forked."""
        self._server.worker_age += 1
        return HookedWorker(self._server, counts)

    def forked(self, worker: HookedWorker, pid: int) -> None:
        """In the pool: note the pid of a worker that was forked."""
        worker.pid = pid
        self._server.WORKERS[pid] = worker

    def ended(self, pid: int) -> None:
        """In the pool: call `child_exit`; what it raises is only logged."""
        worker = self._server.WORKERS.pop(pid, None)
        if worker is None:
            return
        worker.alive = False
        try:
            worker.cfg.child_exit(self._server, worker)
        except Exception:
            log.exception("child_exit raised, for the worker process %d", pid)
