"""One worker process, as its pool sees it."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from wsgi_timeout.store.record import Outcome
from wsgi_timeout_jobs.process.board import Board
from wsgi_timeout_jobs.process.descendants import descendants, kill_all

log = logging.getLogger("wsgi_timeout.pool")


@dataclass
class Interruption:
    """An attempt that was told to end."""

    #: Monotonic seconds.
    since: float
    outcome: Outcome
    #: The outcome is recorded, though the handler still runs.
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
    #: It goes on until its successors are ready.
    outdated: bool = False
    #: When a handler of it was last interrupted: monotonic seconds. It takes no more calls since.
    interrupted_since: float | None = None
    #: What RQ was last told of it: state, calls that succeeded and failed.
    told: tuple[str, int, int] = ("idle", 0, 0)
    #: The pipe that tells a spare process to take calls; -1: it takes calls.
    turn_fd: int = -1

    @property
    def spare(self) -> bool:
        """Whether it only stands by, to replace another."""
        return self.turn_fd >= 0

    def take_turn(self) -> None:
        """Have a spare process take calls."""
        fd, self.turn_fd = self.turn_fd, -1
        with suppress(BrokenPipeError):  # it has ended: that is noticed, and another one is started
            os.write(fd, b"1")
        os.close(fd)

    def stop(self) -> None:
        """Have it take no more calls, and end when those that it runs have."""
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
            self.send(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; what it runs is recovered."""
        self.send(signal.SIGKILL)

    def kill_with_descendants(self) -> None:
        """End it and all that its handlers have started."""
        below = descendants(self.pid)
        self.kill()
        kill_all(below)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process is gone already."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            log.debug("pid %d is gone already", self.pid)

    def memory(self) -> int:
        """Return its resident memory in bytes, with its app's process; 0 where the system does not tell."""
        return sum(_memory(pid) for pid in (self.pid, self.board.app_pid) if pid)


def _memory(pid: int) -> int:
    try:
        statm = Path(f"/proc/{pid}/statm").read_text("ascii")
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
