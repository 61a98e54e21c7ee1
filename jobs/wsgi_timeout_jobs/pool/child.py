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

log = logging.getLogger("wsgi_timeout.pool")


@dataclass
class Interruption:
    """An attempt whose handler was interrupted."""

    #: When, in monotonic seconds.
    since: float
    outcome: Outcome
    #: The outcome was recorded, though the handler still runs.
    ended: bool = False


@dataclass
class Child:
    """One worker process."""

    pid: int
    name: str
    #: Empty for web calls, else a queue of functions, without the target's name.
    queue: str
    board: Board
    #: The full name of its queue, by which its `QueueKeeper` is found; empty until it has loaded the target.
    keeper_name: str = ""
    #: Since when it takes no more calls, in monotonic seconds; None: it does.
    stopping_since: float | None = None
    #: Its interrupted attempts that still run, by call and attempt.
    interrupted: dict[tuple[str, int], Interruption] = field(default_factory=dict)
    #: After a reload: it takes calls until its successors are ready.
    outdated: bool = False
    #: When one of its handlers was last interrupted, in monotonic seconds; since then it takes no calls.
    interrupted_since: float | None = None
    #: The state, and the numbers of succeeded and failed calls, that were last written to RQ's record of it.
    told: tuple[str, int, int] = ("idle", 0, 0)
    #: The pipe that tells a spare process to take calls; -1: it takes calls.
    turn_fd: int = -1

    @property
    def spare(self) -> bool:
        """Whether it only stands by, to replace another process."""
        return self.turn_fd >= 0

    def take_turn(self) -> None:
        """Have a spare process take calls."""
        fd, self.turn_fd = self.turn_fd, -1
        with suppress(BrokenPipeError):  # it has ended, and will be replaced
            os.write(fd, b"1")
        os.close(fd)

    def stop(self) -> None:
        """Have it take no more calls, and end once its running calls have ended."""
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
            self.send(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it; its reaper ends all that its handlers have started, and its calls are recovered."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process is gone already."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            log.debug("pid %d is gone already", self.pid)

    def memory(self) -> int:
        """Return its resident memory in bytes, with that of its app's process; 0 if that is unknown."""
        return sum(_memory(pid) for pid in (self.pid, self.board.app_pid) if pid)


def _memory(pid: int) -> int:
    try:
        statm = Path(f"/proc/{pid}/statm").read_text("ascii")
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
