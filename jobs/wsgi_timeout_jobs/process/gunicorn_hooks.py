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
    """A hook's `worker.app`: the target, as gunicorn's application."""

    def __init__(self, cfg: Any, target: str) -> None:
        self.cfg = cfg
        self.app_uri = target
        #: The loaded target; None before.
        self.callable: Any = None

    def wsgi(self) -> Any:
        return self.callable


class _Server:
    """A hook's `server`: the pool, as gunicorn's arbiter."""

    def __init__(self, cfg: Any, app: _App, processes: int) -> None:
        self.cfg = cfg
        self.app = app
        self.log = log
        self.pid = os.getpid()
        self.num_workers = processes
        self.worker_age = 0
        self.address: list[Any] = []
        self.LISTENERS: list[Any] = []
        #: By pid, those that live.
        self.WORKERS: dict[int, HookedWorker] = {}


class HookedWorker:
    """A hook's `worker`: a process of ours with the attributes of gunicorn's worker that hooks use."""

    def __init__(self, server: _Server, counts: Callable[[], tuple[int, int]]) -> None:
        """Take `counts`, which tells how many of its calls succeeded, and how many failed."""
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
        """Note the target, and call `post_worker_init`; raises what that raises."""
        self.wsgi = self.app.callable = app
        self.cfg.post_worker_init(self)
        self.booted = True

    @contextmanager
    def living(self) -> Iterator[None]:
        """In its process: call `post_fork` before, and `worker_exit` after what runs within."""
        self.pid = os.getpid()
        self.cfg.post_fork(self._server, self)
        try:
            yield
        finally:
            if self.pid == os.getpid():  # and no process that a handler forked
                self.alive = False
                self.cfg.worker_exit(self._server, self)


class GunicornHooks:
    """The hooks of one pool."""

    def __init__(self, file: GunicornFile, target: str, processes: int) -> None:
        self._server = _Server(file.cfg, _App(file.cfg, target), processes)

    def new_worker(self, counts: Callable[[], tuple[int, int]]) -> HookedWorker:
        """Return what stands for a process that is about to be forked."""
        self._server.worker_age += 1
        return HookedWorker(self._server, counts)

    def forked(self, worker: HookedWorker, pid: int) -> None:
        """Note in the pool which process it became."""
        worker.pid = pid
        self._server.WORKERS[pid] = worker

    def ended(self, pid: int) -> None:
        """Call `child_exit` in the pool; what it raises is logged, and ends nothing."""
        worker = self._server.WORKERS.pop(pid, None)
        if worker is None:
            return
        worker.alive = False
        try:
            worker.cfg.child_exit(self._server, worker)
        except Exception:
            log.exception("child_exit raised, for the worker process %d", pid)
