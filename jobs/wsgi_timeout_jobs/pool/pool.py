"""The parent of worker processes: starts them, renews their leases, notices deaths, ends calls in time.

It has one thread. It renews the leases of its children itself: a thread in a child could not do so while a
C extension holds the GIL there.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress

from wsgi_timeout.log_once import LogOnce
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.connection import connect, eviction
from wsgi_timeout.store.pauses import DRAIN
from wsgi_timeout.store.record import Outcome
from wsgi_timeout.store.redis_errors import UNAVAILABLE, ErrorReply, what_happened
from wsgi_timeout.watching.leases import WORKER_DIED
from wsgi_timeout_jobs.pool.child import Child
from wsgi_timeout_jobs.pool.children import Children, Served
from wsgi_timeout_jobs.pool.deadlines import Deadlines
from wsgi_timeout_jobs.pool.emptiness import Emptiness
from wsgi_timeout_jobs.pool.metrics_port import MetricsPort
from wsgi_timeout_jobs.pool.options import PoolOptions
from wsgi_timeout_jobs.pool.pauses import Pauses
from wsgi_timeout_jobs.pool.queue_keeper import QueueKeeper
from wsgi_timeout_jobs.pool.records import Records
from wsgi_timeout_jobs.pool.rq_commands import Command, CommandChannel
from wsgi_timeout_jobs.pool.signals import install, tell_systemd, wait

log = logging.getLogger("wsgi_timeout.pool")

#: Seconds between two checks of children, deadlines and cancels; a child's death wakes the pool at once.
TICK_SECONDS = 0.25
#: How often leases are renewed within `lease_seconds`.
_RENEWALS = 3.3
_LOOK_SECONDS = 1.0
#: Seconds between two looks for cancels and `rq suspend` while nothing runs.
_IDLE_SECONDS = 1.0


class Pool:
    """Runs `options.processes` workers of one target."""

    def __init__(
        self, target: str, name: str | None, url: str, settings: Settings, options: PoolOptions
    ) -> None:
        """Serve `target` under `name`; None: the target may give itself a name."""
        self._settings = settings
        self._metrics = None if options.metrics_port is None else MetricsPort(options.metrics_port, url)
        self._inbox = secrets.token_urlsafe(12)
        # One connection for commands, one to listen for RQ's commands.
        self._redis = connect(url, connections=2)
        self._commands = CommandChannel(self._redis)
        self._children = Children(Served(target, name, url, self._inbox), settings, options)
        #: For each queue that the children serve, by its full name.
        self._keepers: dict[str, QueueKeeper] = {}
        self._deadlines = Deadlines(
            self._children, self._keepers, threads=options.threads, grace=settings.interrupt_grace
        )
        self._log_once = LogOnce("pool")
        self._away = False
        self._records = Records(
            self._redis, self._children, self._deadlines, patience=settings.reader_timeout / 2
        )
        self._pauses = Pauses()
        self._next_renewal = self._next_look = self._next_cancels = 0.0
        self._empty = Emptiness(self._inbox)
        self._looked_at_server = False
        self._ready_fd = options.ready_fd
        self._told_ready = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the process's exit code."""
        wakeup = install(self._children)
        while self._children or self._children.stopping_since is None:
            self._step()
            wait(wakeup, TICK_SECONDS)
        with self._log_once:
            self._keep()
        if self._metrics:
            self._metrics.close()
        return 1 if self._children.load_failed else 0

    def _step(self) -> None:
        """Do all that is due now. An unexpected error is logged, and does not end the pool."""
        for part in (
            self._look_at_children,
            self._children.spawn_missing,
            self._keep,
            self._children.check_memory,
            self._deadlines.check,
            # Once more: children that were stopped just now are replaced at once.
            self._children.spawn_missing,
            self._children.check_stop,
            *([self._metrics.keep] if self._metrics else ()),
        ):
            with self._log_once:
                part()

    # -- children

    def _look_at_children(self) -> None:
        for child, code in self._children.reap():
            if child.keeper_name:
                self._keeper_of(child).worker_died(child.name, _death(code))
        if self._children.load_failed and self._children.stopping_since is None:
            self._children.stop()
        for child in self._children.came_up():
            self._keeper_of(child)
            # A starting child's lease dates from its start: renew it now.
            self._next_renewal = 0.0
        self._tell_ready()

    def _keeper_of(self, child: Child) -> QueueKeeper:
        name = child.keeper_name
        if name not in self._keepers:
            self._keepers[name] = QueueKeeper(
                self._redis, name, self._settings.lease_seconds, self._settings.slow_queue_seconds
            )
        return self._keepers[name]

    def _tell_ready(self) -> None:
        if not self._children.ever_ready or self._told_ready:
            return
        self._told_ready = True
        tell_systemd("READY=1")
        if self._ready_fd >= 0:
            os.write(self._ready_fd, f"{self._children.name}\n".encode())
            os.close(self._ready_fd)
            self._ready_fd = -1

    # -- Redis

    def _keep(self) -> None:
        """Do what needs Redis. Leases first: after an outage they are renewed before others check them."""
        parts = (
            self._renew_leases,
            self._look_whether_empty,
            self._settle,
            self._look_at_queues,
            self._receive_cancels,
            self._records.check,
            self._receive_commands,
            # Last, since a full Redis refuses it.
            self._tell_rq,
            self._look_at_server,
        )
        if all(self._answers(part) for part in parts):
            self._away = False
        else:
            self._records.note_away()

    def _answers(self, part: Callable[[], None]) -> bool:
        """Do a part; return False if Redis is away, and the other parts need not be tried."""
        with self._log_once:  # an unexpected error must not prevent the other parts
            try:
                part()
            except UNAVAILABLE as error:
                self._note_away(error)
                return False
        return True

    def _note_away(self, error: Exception) -> None:
        if not self._away:
            log.warning("%s; workers go on", what_happened(error))
        self._away = True

    def _renew_leases(self) -> None:
        now = time.monotonic()
        if now < self._next_renewal:
            return
        for queue, keeper in self._keepers.items():
            self._renew(queue, keeper)
        self._next_renewal = now + self._settings.lease_seconds / _RENEWALS

    def _renew(self, queue: str, keeper: QueueKeeper) -> None:
        ready = {child.name: child for child in self._children if child.keeper_name == queue}
        began = time.monotonic()
        busy = [name for name, child in ready.items() if any(child.board.running())]
        lost = keeper.renew([name for name, child in ready.items() if child.board.ready], busy)
        for name in ready.keys() - lost:
            ready[name].board.renewed = began
        for name in lost:
            # Its calls were recovered by others: it must not continue.
            log.warning("worker %s lost its lease and is stopped", name)
            ready[name].kill()

    def _look_whether_empty(self) -> None:
        if self._empty.look(self._keepers, self._children.running()):
            self._pauses.none(self._children)

    def _settle(self) -> None:
        for keeper in self._keepers.values():
            keeper.settle()
            if not self._empty:
                keeper.release()

    def _look_at_queues(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        for keeper in self._keepers.values():
            keeper.look(empty=bool(self._empty))
        self._next_look = now + _LOOK_SECONDS

    def _look_at_server(self) -> None:
        """Warn once of a server that may lose data that it has acknowledged."""
        if not self._looked_at_server:
            with suppress(ErrorReply):  # this user may not call INFO
                if trouble := eviction(self._redis):
                    log.warning(trouble)
            self._looked_at_server = True

    def _receive_cancels(self) -> None:
        now = time.monotonic()
        if self._empty or (now < self._next_cancels and not any(self._children.running())):
            return
        self._next_cancels = now + _IDLE_SECONDS
        pipe = self._redis.pipeline(transaction=False)
        pipe.lpop(keys.inbox(self._inbox), 1000)
        self._pauses.ask(pipe, self._keepers)
        messages, *paused = pipe.execute()
        self._pauses.tell(paused, self._children)
        cancelled = set(messages or ())
        if DRAIN in cancelled:
            self._children.drain()
        for child, running in self._children.running():
            if running.call_id.encode() in cancelled:
                self._deadlines.interrupt(child, running, Outcome.CANCELLED)

    def _receive_commands(self) -> None:
        for command in self._commands.received([child.name for child in self._children]):
            log.info("worker %s: RQ command %s", command.worker, command.command)
            for child in self._children:
                if child.name == command.worker:
                    self._run_command(command, child)

    def _run_command(self, command: Command, child: Child) -> None:
        if command.command == "shutdown":
            child.stop()
        elif command.command == "kill-horse":
            child.kill()
        elif command.command in {"stop-job", "stop-execution"}:
            for runs_it, running in self._children.running():
                if runs_it is child and running.call_id == command.call_id:
                    self._deadlines.record(child, running, Outcome.CANCELLED)
                    self._deadlines.interrupt(child, running, Outcome.CANCELLED)

    def _tell_rq(self) -> None:
        """Update RQ's records of our workers: busy or idle, and how many calls they have run."""
        pipe = self._redis.pipeline(transaction=False)
        news: list[tuple[Child, tuple[str, int, int]]] = []
        for child in self._children:
            state = "busy" if child.board.running() else "idle"
            now = (state, *child.board.counts())
            if child.keeper_name and child.told != now:
                news.append((child, now))
                key = rq_state.worker_key(child.name)
                pipe.hset(key, mapping=rq_state.worker_progress(*now))
                pipe.expire(key, keys.WORKER_TTL)
        pipe.execute()
        for child, told in news:
            child.told = told


def _death(code: int) -> str:
    return f"{WORKER_DIED} (signal {-code})" if code < 0 else f"{WORKER_DIED} (exit code {code})"
