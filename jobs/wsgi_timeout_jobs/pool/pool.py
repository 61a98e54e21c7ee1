"""The parent of worker processes: it forks them, renews leases, notices deaths, ends what runs too long.

Single-threaded, and forking from its main thread: a child with PDEATHSIG dies when the thread that
forked it ends. It renews the leases of all its children, since a renewing thread in a child stops
while a C call there holds the GIL.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import secrets
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import redis

from wsgi_timeout import target as targets
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.reloading import Reloader
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.calls import Outcome
from wsgi_timeout.store.connection import AWAY, REFUSING, connect, eviction
from wsgi_timeout.watching.leases import WORKER_DIED
from wsgi_timeout_jobs.pool.queue_keeper import QueueKeeper
from wsgi_timeout_jobs.pool.rq_commands import Command, Commands
from wsgi_timeout_jobs.process.board import Board, Running
from wsgi_timeout_jobs.process.interrupts import SIGNAL

log = logging.getLogger("wsgi_timeout.pool")

#: Seconds between two looks at children, deadlines and cancels; a death wakes the pool at once.
TICK_SECONDS = 0.25
#: Leases are renewed this many times within the seconds after which they count as lost.
_RENEWALS = 3.3
_LOOK_SECONDS = 1.0
#: Seconds between two looks at the records of calls that run for so long.
_RECORDS_SECONDS = 2.0
#: Seconds in which a handler that was interrupted may record its own end.
_UNANSWERED_SECONDS = 2.0
#: Seconds after which a child that died at start is tried again, doubled up to the second.
_BACKOFF_SECONDS = (0.5, 30.0)
#: Seconds after which a fork that the system refused is tried again.
_FORK_PAUSE_SECONDS = 1.0
#: How a call ends that was not ended by whoever runs it.
_ENDED_ELSEWHERE = {Outcome.CANCELLED.encode(), Outcome.TIMEOUT.encode(), Outcome.LOST.encode()}
#: Exit codes of a child.
EXIT_LOAD_FAILED = 3
EXIT_RELOAD = 4

_STOPS = (signal.SIGTERM, signal.SIGINT)
_HELD = (*_STOPS, signal.SIGHUP)
_AWAY = (*AWAY, *REFUSING, redis.exceptions.ResponseError)


@dataclass
class Interruption:
    """An attempt that was told to end."""

    #: Monotonic seconds.
    since: float
    outcome: Outcome
    #: The outcome stands, though the handler goes on.
    ended: bool = False


@dataclass
class Child:
    """One worker process."""

    pid: int
    name: str
    #: Empty for web calls, else a queue of functions, after the target's name.
    queue: str
    board: Board
    #: The full name of its queue; empty until it has loaded the target.
    keeper_name: str = ""
    #: Since when it takes no more calls, told to or by itself: monotonic seconds.
    stopping_since: float | None = None
    #: By call and attempt, for as long as these run.
    interrupted: dict[tuple[str, int], Interruption] = field(default_factory=dict)
    #: What RQ was last told of it: state, calls that succeeded and failed.
    told: tuple[str, int, int] = ("idle", 0, 0)


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How many processes and threads, and when to replace them."""

    processes: int = 1
    threads: int = 1
    #: Calls after which a process is replaced; 0: never.
    max_requests: int = 0
    #: Bytes of memory after which an idle process is replaced; 0: never.
    max_memory: int = 0
    #: Seconds that running calls may finish in after SIGTERM.
    graceful_timeout: float = 30.0
    reload: bool = False
    #: Processes for each queue of functions that the target has.
    function_processes: int = 1
    #: A pipe into which the pool writes the target's name when a first child has loaded it; -1: none.
    ready_fd: int = -1


class Pool:
    """Runs `options.processes` workers of one target."""

    def __init__(
        self, target: str, name: str | None, url: str, settings: Settings, options: PoolOptions
    ) -> None:
        """Serve `target` under `name`; None: the target may name itself."""
        self._target = target
        self._name = name
        self._url = url
        self._settings = settings
        self._options = options
        self._inbox = secrets.token_urlsafe(12)
        # One connection for commands, one that listens for RQ's.
        self._redis = connect(url, connections=2)
        self._commands = Commands(self._redis)
        self._away = False
        self._next_renewal = self._next_look = self._next_records = 0.0
        #: The attempts that ran when records were last looked at.
        self._ran: set[tuple[str, int]] = set()
        #: One for each queue that our children take calls of, by its full name.
        self._keepers: dict[str, QueueKeeper] = {}
        #: Queues of functions that the target has, after its name; known when it is loaded.
        self._queues: tuple[str, ...] = ()
        self._children: dict[int, Child] = {}
        self._stop_since: float | None = None
        self._failures = 0
        self._spawn_after = 0.0
        self._ever_ready = False
        self._looked = False
        self._ready_fd = options.ready_fd
        self._exit_code = 0

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the process's exit code."""
        wakeup = self._install_signals()
        while self._children or self._stop_since is None:
            self._reap()
            self._spawn_missing()
            self._tell_ready()
            try:
                self._keep()
                self._look_at_server()
                self._away = False
            except _AWAY as error:
                if not self._away:
                    log.warning("Redis is away (%s); workers go on", error)
                self._away = True
            self._check_memory()
            self._check_deadlines()
            self._check_stop()
            select.select([wakeup], [], [], TICK_SECONDS)
            _drain(wakeup)
        with suppress(*_AWAY):
            self._keep()
        return self._exit_code

    # -- children

    def _spawn_missing(self) -> None:
        if self._stop_since is not None or time.monotonic() < self._spawn_after:
            return
        for queue in ("", *self._queues):
            # One that is being replaced takes no more calls, and may go on for long.
            there = [c for c in self._children.values() if c.queue == queue and c.stopping_since is None]
            # One alone at first: an app that cannot be loaded then says so once.
            for _ in range((self._wanted(queue) if self._ever_ready else 1) - len(there)):
                try:
                    self._spawn(queue)
                except OSError as error:
                    # Too many processes, or too little memory: those that run need not end for it.
                    log.warning("no new worker can be started: %s", error)
                    self._spawn_after = time.monotonic() + _FORK_PAUSE_SECONDS
                    return

    def _wanted(self, queue: str) -> int:
        return self._options.function_processes if queue else self._options.processes

    def _spawn(self, queue: str) -> None:
        known = self._name or targets.name_of(self._target)
        name = f"{known}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        board, parent = Board(self._options.threads), os.getpid()
        # A stop that came around the fork would miss the child, or be handled in it as if it were the parent.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
        try:
            if self._stop_since is None:
                pid = os.fork()
                if pid == 0:
                    self._child(name, queue, board, parent)
                self._children[pid] = Child(pid, name, queue, board)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _child(self, name: str, queue: str, board: Board, parent: int) -> None:
        """Be the child: never returns into the parent's code."""
        code = 1
        reloader = Reloader() if self._options.reload else None
        try:
            _die_with_parent(parent)
            _default_signals()
            if self._ready_fd >= 0:
                os.close(self._ready_fd)
            if reloader:
                reloader.start()
            # What an app registers to run at exit does so here; what the parent registered does not.
            atexit._clear()  # noqa: SLF001
            self._work(name, queue, board)
            atexit._run_exitfuncs()  # noqa: SLF001
            code = EXIT_RELOAD if reloader else 0
        except BaseException as error:  # noqa: BLE001 - the last frame of this process
            # One write: the lines of several processes must not mix.
            sys.stderr.write(self._complaint(error, board))
            if not board.ready:
                code = self._load_failed(error, reloader)
        finally:
            # Nobody may read them any more. In no case does this process go on as if it were the parent.
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            os._exit(code)

    def _complaint(self, error: BaseException, board: Board) -> str:
        if isinstance(error, ConfigurationError):
            return f"wsgi-timeout: {error}\n"
        end = "" if board.ready else f"wsgi-timeout: importing {self._target!r} failed, see above\n"
        return "".join(traceback.format_exception(error)) + end

    def _load_failed(self, error: BaseException, reloader: Reloader | None) -> int:
        """Return the exit code of a child that could not load the app: with `--reload` after an edit."""
        mistyped = isinstance(error, ConfigurationError) and not self._ever_ready
        if reloader is None or mistyped:
            return EXIT_LOAD_FAILED
        reloader.wait()
        return EXIT_RELOAD

    def _work(self, name: str, queue: str, board: Board) -> None:
        # Imported here: the parent stays small, and an app's own patching finds a fresh process.
        from wsgi_timeout_jobs.worker import WorkerOptions, run_worker  # noqa: PLC0415

        options = WorkerOptions(
            worker=name,
            url=self._url,
            target=self._target,
            name=self._name,
            queue=queue,
            processes=self._wanted(queue),
            pool_inbox=self._inbox,
            max_requests=self._options.max_requests,
            patience=1.5 * self._settings.lease_seconds,
            lease_seconds=self._settings.lease_seconds,
        )
        run_worker(options, board)

    def _reap(self) -> None:
        for pid, child in tuple(self._children.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self._children[pid]
                self._buried(child, os.waitstatus_to_exitcode(status))
        for child in self._children.values():
            if child.board.ready and not child.keeper_name:
                self._came_up(child)
            if child.board.leaving and child.stopping_since is None:
                child.stopping_since = time.monotonic()

    def _came_up(self, child: Child) -> None:
        name, self._queues = child.board.offered()
        self._name = name
        self._ever_ready = True
        child.keeper_name = f"{name}:{child.queue}" if child.queue else name
        # Its lease is as old as its start.
        self._next_renewal = 0.0
        if child.keeper_name not in self._keepers:
            lease_seconds = self._settings.lease_seconds
            self._keepers[child.keeper_name] = QueueKeeper(self._redis, child.keeper_name, lease_seconds)

    def _tell_ready(self) -> None:
        if self._ever_ready and self._ready_fd >= 0:
            os.write(self._ready_fd, f"{self._name}\n".encode())
            os.close(self._ready_fd)
            self._ready_fd = -1

    def _buried(self, child: Child, code: int) -> None:
        if child.board.ready and not child.keeper_name:
            self._came_up(child)
        if child.keeper_name:
            self._keepers[child.keeper_name].bury(child.name, _death(code))
        if code < 0 and not (self._stop_since is not None):
            log.warning("worker %s (pid %d) was killed by signal %d", child.name, child.pid, -code)
        if child.board.ready or code == EXIT_RELOAD:
            self._failures = 0
            return
        self._failures += 1
        first, most = _BACKOFF_SECONDS
        self._spawn_after = time.monotonic() + min(most, first * 2**self._failures)
        if code == EXIT_LOAD_FAILED and not self._ever_ready:
            self._exit_code = 1
            self._stop()

    # -- leases, cancels, deadlines

    def _keep(self) -> None:
        """Do what needs Redis. Leases first: when it comes back they are renewed before anybody looks."""
        now = time.monotonic()
        if now >= self._next_renewal:
            for queue, keeper in self._keepers.items():
                self._renew(queue, keeper)
            self._next_renewal = now + self._settings.lease_seconds / _RENEWALS
        for keeper in self._keepers.values():
            keeper.settle()
            keeper.release()
            if now >= self._next_look:
                keeper.look()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
        self._hear_cancels()
        self._look_at_records()
        for command in self._commands.hear([child.name for child in self._children.values()]):
            self._obey(command)
        # Last: a full Redis does not take it.
        self._tell_rq()

    def _look_at_server(self) -> None:
        """Warn once of a server that loses what it acknowledged."""
        if not self._looked:
            with suppress(redis.exceptions.ResponseError):  # not every user may ask for it
                if trouble := eviction(self._redis):
                    log.warning(trouble)
            self._looked = True

    def _tell_rq(self) -> None:
        """Keep what RQ shows of our workers: busy or idle, and how many calls they ran."""
        pipe = self._redis.pipeline(transaction=False)
        news: dict[int, tuple[str, int, int]] = {}
        for child in self._children.values():
            succeeded, failed = child.board.counts()
            state = "busy" if child.board.running() else "idle"
            if child.keeper_name and child.told != (state, succeeded, failed):
                news[child.pid] = (state, succeeded, failed)
                key = rq_state.worker_key(child.name)
                pipe.hset(key, mapping=rq_state.worker_progress(*news[child.pid]))
                pipe.expire(key, keys.WORKER_TTL)
        pipe.execute()
        for pid, told in news.items():
            self._children[pid].told = told

    def _renew(self, queue: str, keeper: QueueKeeper) -> None:
        ready = {child.name: child for child in self._children.values() if child.keeper_name == queue}
        began = time.monotonic()
        lost = keeper.renew([name for name, child in ready.items() if child.board.ready])
        for name in ready.keys() - lost:
            ready[name].board.renewed = began
        for name in lost:
            # Its calls were given to others: it must not go on.
            log.warning("worker %s lost its lease and is stopped", name)
            _kill(ready[name].pid, signal.SIGKILL)

    def _hear_cancels(self) -> None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.lpop(keys.inbox(self._inbox), 1000)
        pipe.exists(rq_state.SUSPENDED)
        heard, suspended = pipe.execute()
        for child in self._children.values():
            child.board.suspended = bool(suspended)
        if heard:
            cancelled = {call_id.decode() for call_id in heard}
            for child, running in self._running():
                if running.call_id in cancelled:
                    self._interrupt(child, running, Outcome.CANCELLED)

    def _look_at_records(self) -> None:
        """Interrupt what others ended, or have now: word of it may be lost, or come too early."""
        now = time.monotonic()
        if now < self._next_records:
            return
        self._next_records = now + _RECORDS_SECONDS
        # What its own worker has ended may go on after its response, and its record be gone.
        there = [(child, running) for child, running in self._running() if not running.recorded]
        long = [(child, running) for child, running in there if running.attempt_of in self._ran]
        self._ran = {running.attempt_of for _, running in there}
        pipe = self._redis.pipeline(transaction=False)
        for _, running in long:
            pipe.hmget(keys.call(running.call_id), "state", "attempt", "outcome")
        for (child, running), (state, attempt, outcome) in zip(long, pipe.execute(), strict=True):
            ended = state == b"ended" and outcome in _ENDED_ELSEWHERE
            if (ended or attempt != b"%d" % running.attempt) and running in child.board.running():
                self._interrupt(child, running, Outcome.CANCELLED, ended=True)

    def _obey(self, command: Command) -> None:
        log.info("worker %s: RQ command %s", command.worker, command.command)
        child = next(child for child in self._children.values() if child.name == command.worker)
        if command.command == "shutdown":
            self._stop_child(child)
        elif command.command == "kill-horse":
            _kill(child.pid, signal.SIGKILL)
        elif command.command in {"stop-job", "stop-execution"}:
            for runs_it, running in self._running():
                if runs_it is child and running.call_id == command.call_id:
                    self._end(child, running, Outcome.CANCELLED)
                    self._interrupt(child, running, Outcome.CANCELLED)

    def _running(self) -> Iterator[tuple[Child, Running]]:
        for child in self._children.values():
            # One that came up since the last look at children is not known to be of a queue yet.
            if child.keeper_name:
                for running in child.board.running():
                    yield child, running

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for child, running in self._running():
            interruption = child.interrupted.get(running.attempt_of)
            if running.settling:
                continue
            if interruption is None:
                if now >= running.deadline:
                    self._interrupt(child, running, Outcome.TIMEOUT)
            elif self._options.threads == 1:
                self._press(child, running, interruption)
        for child in self._children.values():
            there = {running.attempt_of for running in child.board.running()}
            child.interrupted = {key: found for key, found in child.interrupted.items() if key in there}

    def _press(self, child: Child, running: Running, interruption: Interruption) -> None:
        """Go on with a handler that was interrupted, and has not ended."""
        grace = self._settings.interrupt_grace
        seconds = time.monotonic() - interruption.since
        if seconds > min(grace, _UNANSWERED_SECONDS) and not interruption.ended:
            # Whoever waits need not wait for its `finally`.
            interruption.ended = True
            self._end(child, running, interruption.outcome)
        # Telling may take long, and the child runs another call then.
        if seconds > grace and running in child.board.running():
            log.warning("%s: did not end when interrupted, %s is killed", running.call_id, child.name)
            _kill(child.pid, signal.SIGKILL)

    def _interrupt(self, child: Child, running: Running, outcome: Outcome, *, ended: bool = False) -> None:
        """Have a handler end; `ended`: how is recorded already."""
        if running.settling or running.attempt_of in child.interrupted:
            return
        child.interrupted[running.attempt_of] = Interruption(time.monotonic(), outcome, ended)
        child.board.interrupt(running, outcome)
        if self._options.threads == 1:
            _kill(child.pid, SIGNAL)
        else:
            # No exception reaches a thread that sleeps: the outcome stands now, the process is replaced
            # when its other calls have ended.
            if not ended:
                self._end(child, running, outcome)
            self._stop_child(child)

    def _end(self, child: Child, running: Running, outcome: Outcome) -> None:
        detail = "the handler ran longer than its timeout" if outcome is Outcome.TIMEOUT else "cancelled"
        keeper = self._keepers[child.keeper_name]
        ttl = self._settings.function_result_ttl if child.queue else self._settings.result_ttl
        keeper.end(running.call_id, outcome, detail, ttl, running.attempt)
        try:
            keeper.settle()
        except _AWAY as error:
            log.warning("%s: %s cannot be recorded yet: %s", running.call_id, outcome, error)

    def _check_memory(self) -> None:
        if not self._options.max_memory:
            return
        for child in self._children.values():
            # One that is too large from the start is worth a call: else no call would ever run.
            used = any(child.board.counts()) or child.board.running()
            if used and child.stopping_since is None and _memory(child.pid) > self._options.max_memory:
                log.info("worker %s is over max_memory, and replaced when its calls have ended", child.name)
                self._stop_child(child)

    # -- stopping

    def _install_signals(self) -> int:
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _STOPS:
            signal.signal(number, self._on_stop)
        # What a terminal sends when it is closed, to the children too; `nohup` has it ignored.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._on_hangup)
        return read

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop_since is None:
            self._stop()
        else:
            self._stop_since = float("-inf")

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop_since is None:
            self._stop()

    def _stop(self) -> None:
        self._stop_since = time.monotonic()
        for child in self._children.values():
            self._stop_child(child)

    @staticmethod
    def _stop_child(child: Child) -> None:
        if child.stopping_since is None:
            child.stopping_since = time.monotonic()
            _kill(child.pid, signal.SIGTERM)

    def _check_stop(self) -> None:
        if self._stop_since is None:
            return
        if time.monotonic() - self._stop_since > self._options.graceful_timeout:
            for child in self._children.values():
                _kill(child.pid, signal.SIGKILL)


def _death(code: int) -> str:
    return f"{WORKER_DIED} (signal {-code})" if code < 0 else f"{WORKER_DIED} (exit code {code})"


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux; elsewhere the lease does it)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    # It may have died before that.
    if os.getppid() != parent:
        os._exit(1)


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, *_STOPS):
        signal.signal(number, signal.SIG_DFL)
    # The pool tells it when to stop. Not ignored: what the app starts would inherit that.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        log.debug("pid %d is gone already", pid)


def _memory(pid: int) -> int:
    """Return a process's resident memory in bytes, 0 where the system does not tell."""
    try:
        statm = Path(f"/proc/{pid}/statm").read_text("ascii")
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        pass
