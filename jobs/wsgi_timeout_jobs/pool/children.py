"""Starts, watches, stops and replaces the worker processes of a pool.

They are forked from the pool's main thread, since a child with PDEATHSIG dies when the thread that forked
it ends.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

from wsgi_timeout import target as targets
from wsgi_timeout.settings import Settings
from wsgi_timeout_jobs.pool.child import Child
from wsgi_timeout_jobs.pool.forked import EXIT_LOAD_FAILED, EXIT_RELOAD, HELD, be_child
from wsgi_timeout_jobs.pool.options import PoolOptions
from wsgi_timeout_jobs.process.board import Board, Running
from wsgi_timeout_jobs.process.cookie_table import CookieTable
from wsgi_timeout_jobs.process.gunicorn_hooks import GunicornHooks, HookedWorker
from wsgi_timeout_jobs.process.options import WorkerOptions
from wsgi_timeout_jobs.process.reaper import fork_with_reaper

log = logging.getLogger("wsgi_timeout.pool")

#: Seconds before a child that died at start is started again: the first pause, doubled up to the second.
_BACKOFF_SECONDS = (0.5, 30.0)
#: Seconds before a fork that the system has refused is tried again.
_FORK_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Served:
    """What the children of a pool serve, and how they reach the pool."""

    target: str
    #: None: the target may give itself a name.
    name: str | None
    url: str
    #: The inbox of the pool.
    inbox: str
    pool_pid: int = field(default_factory=os.getpid)


class Children:
    """The worker processes of one pool."""

    def __init__(self, served: Served, settings: Settings, options: PoolOptions) -> None:
        self._served = served
        self._settings = settings
        self._options = options
        self._hooks: GunicornHooks | None = None
        if options.gunicorn and not options.python:
            self._hooks = GunicornHooks(options.gunicorn, served.target, options.processes)
        self._cookies = CookieTable(options.processes) if options.processes > 1 else None
        #: By the pid of each one's reaper, which ends after it.
        self._by_reaper: dict[int, Child] = {}
        #: The target's queues of functions, without its name; known once a child has loaded it.
        self._queues: tuple[str, ...] = ()
        self._failures = 0
        self._spawn_after = 0.0
        #: The target's name; None until a child has loaded the target.
        self.name = served.name
        self.ever_ready = False
        #: The first child could not load the target, so the pool ends.
        self.load_failed = False
        #: Since when the pool stops, in monotonic seconds; no process is started then. None: it runs.
        self.stopping_since: float | None = None
        #: The pool stops without a time limit for running calls.
        self.draining = False

    def __iter__(self) -> Iterator[Child]:
        return iter(tuple(self._by_reaper.values()))

    def __bool__(self) -> bool:
        return bool(self._by_reaper)

    def running(self) -> Iterator[tuple[Child, Running]]:
        """Yield the running calls, each with its child."""
        for child in self:
            # Without this it has just started, and its queue is not known yet.
            if child.keeper_name:
                for running in child.board.running():
                    yield child, running

    # -- starting

    def spawn_missing(self) -> None:
        """Start missing processes; one that is stopping is replaced before it has ended."""
        if self.stopping_since is not None or time.monotonic() < self._spawn_after:
            return
        try:
            for queue in ("", *self._queues):
                self._spawn_missing_of(queue)
        except OSError as error:
            # Too many processes, or too little memory: the running ones continue.
            log.warning("no new worker can be started: %s", error)
            self._spawn_after = time.monotonic() + _FORK_PAUSE_SECONDS

    def _spawn_missing_of(self, queue: str) -> None:
        there = [c for c in self if c.queue == queue and c.stopping_since is None and not c.outdated]
        spare = sorted((c for c in there if c.spare), key=lambda child: not child.board.loaded)
        # At first only one, so that an app that cannot be loaded logs its error once.
        wanted = self._wanted(queue) if self.ever_ready else 1
        missing = wanted - (len(there) - len(spare))
        for child in spare[: max(0, missing)]:
            child.take_turn()
        for _ in range(missing - len(spare)):
            self._spawn(queue)
        # Spare processes are started after all others are ready.
        if self.ever_ready and all(child.board.ready for child in there if not child.spare):
            for _ in range(self._options.spare - max(0, len(spare) - max(0, missing))):
                self._spawn(queue, spare=True)

    def _wanted(self, queue: str) -> int:
        return self._options.function_processes if queue else self._options.processes

    def _spawn(self, queue: str, *, spare: bool = False) -> None:
        known = self.name or targets.name_of(self._served.target)
        name = f"{known}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        board = Board(self._options.threads)
        hooked = self._hooks.new_worker(board.counts) if self._hooks else None
        read_fd, write_fd = os.pipe() if spare else (-1, -1)
        # A stop signal during the fork would miss the child, or run the parent's handler in the child.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            if self.stopping_since is None:
                pid, reaper_pid = fork_with_reaper(board)
                if pid == 0:
                    self._be_child(name, queue, board, read_fd, hooked)
                self._by_reaper[reaper_pid] = Child(pid, name, queue, board, turn_fd=write_fd)
                if self._hooks and hooked:
                    self._hooks.forked(hooked, pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if spare:
                os.close(read_fd)

    def _be_child(
        self, name: str, queue: str, board: Board, turn_fd: int, hooked: HookedWorker | None
    ) -> None:
        be_child(
            lambda: self._work(name, queue, board, turn_fd, hooked),
            board,
            self._served.target,
            reload=self._options.reload,
            loaded_before=self.ever_ready,
        )

    def _work(self, name: str, queue: str, board: Board, turn_fd: int, hooked: HookedWorker | None) -> None:
        # Imported here, so that the parent stays small, and apps can monkey-patch a fresh process.
        from wsgi_timeout_jobs.worker.start import run_worker  # noqa: PLC0415

        if self._options.ready_fd >= 0 and not self.ever_ready:
            os.close(self._options.ready_fd)
        options = WorkerOptions(
            worker=name,
            url=self._served.url,
            target=self._served.target,
            name=self.name,
            queue=queue,
            processes=self._wanted(queue),
            pool_pid=self._served.pool_pid,
            pool_inbox=self._served.inbox,
            max_requests=self._options.max_requests,
            patience=1.5 * self._settings.lease_seconds,
            lease_seconds=self._settings.lease_seconds,
            turn_fd=turn_fd,
            python=self._options.python,
            reload=self._options.reload,
            loaded=hooked.loaded if hooked else None,
            cookies=self._cookies,
        )
        with hooked.living() if hooked else nullcontext():
            run_worker(options, board)

    def reload(self) -> None:
        """Replace all processes; old ones take calls until as many new ones are ready."""
        for child in self:
            child.outdated = True

    def _stop_outdated(self) -> None:
        for queue in {child.queue for child in self if child.outdated}:
            new = [c for c in self if c.queue == queue and not c.outdated and c.stopping_since is None]
            ready = [child for child in new if child.board.ready]
            if len(ready) >= self._wanted(queue):
                for child in self:
                    if child.outdated and child.queue == queue:
                        child.stop()

    # -- watching

    def came_up(self) -> list[Child]:
        """Return the children that have become ready since the last call."""
        new = [child for child in self if child.board.ready and not child.keeper_name]
        for child in new:
            self.note_ready(child)
        for child in self:
            if child.board.leaving and child.stopping_since is None:
                child.stopping_since = time.monotonic()
        self._stop_outdated()
        return new

    def note_ready(self, child: Child) -> None:
        """Take the target's name and queues from a child that has loaded it."""
        self.name, self._queues = child.board.offered()
        self.ever_ready = True
        child.keeper_name = f"{self.name}:{child.queue}" if child.queue else self.name

    def reap(self) -> list[tuple[Child, int]]:
        """Return the children that have ended, each with its exit code."""
        ended = []
        for pid, status in _ended_processes():
            # As PID 1 of a container, the pool also reaps processes whose parents have died.
            if child := self._by_reaper.pop(pid, None):
                code = os.waitstatus_to_exitcode(status)
                if self._hooks:
                    self._hooks.ended(child.pid)
                self._note_end(child, code)
                ended.append((child, code))
        return ended

    def _note_end(self, child: Child, code: int) -> None:
        if child.board.ready and not child.keeper_name:
            self.note_ready(child)
        if child.spare:
            os.close(child.turn_fd)
        if code < 0 and child.stopping_since is None:
            log.warning("worker %s (pid %d) was killed by signal %d", child.name, child.pid, -code)
        # A process that has loaded the target may still refuse to start: because of other workers.
        began = child.board.ready or (child.board.loaded and code != EXIT_LOAD_FAILED)
        if began or code == EXIT_RELOAD:
            self._failures = 0
            return
        self._failures += 1
        first, most = _BACKOFF_SECONDS
        self._spawn_after = time.monotonic() + min(most, first * 2**self._failures)
        self.load_failed = code == EXIT_LOAD_FAILED and not self.ever_ready

    def check_memory(self) -> None:
        """Replace children that use more than `max_memory`."""
        if not self._options.max_memory:
            return
        for child in self:
            # If a process is too large from the start, it runs one call; otherwise no call would ever run.
            used = any(child.board.counts()) or child.board.running()
            if used and child.stopping_since is None and child.memory() > self._options.max_memory:
                log.info("worker %s is over max_memory, and replaced when its calls have ended", child.name)
                child.stop()

    # -- stopping

    def stop(self) -> None:
        """Stop the pool; running calls may take `graceful_timeout`."""
        self.draining = False
        self.stopping_since = time.monotonic()
        for child in self:
            child.stop()

    def drain(self) -> None:
        """Stop the pool; running calls may take as long as they need."""
        if self.stopping_since is None:
            log.info("draining, as `wsgi-timeout drain` says: no more calls are taken")
            self.stop()
            self.draining = True

    def stop_now(self) -> None:
        """End the time that running calls have, in a stop that has begun."""
        self.stopping_since = float("-inf")

    def check_stop(self) -> None:
        """Kill children that have not ended within `graceful_timeout`."""
        since = self.stopping_since
        if since is None or self.draining:
            return
        if time.monotonic() - since > self._options.graceful_timeout:
            for child in self:
                child.kill()


def _ended_processes() -> Iterator[tuple[int, int]]:
    """Yield the pid and the status of each child of this process that has ended."""
    with suppress(ChildProcessError):  # there are no children
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            yield pid, status
