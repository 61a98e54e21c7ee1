"""Finds the processes below this one, and ends them (on Linux only)."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def end_descendants() -> None:
    """Kill all processes below this one.

    They are stopped first, so that none starts another one meanwhile. Processes of another user stay.
    """
    ended: set[int] = set()
    while found := _stop_descendants(ended):
        for pid in found:
            _send(pid, signal.SIGKILL)
        ended |= found


def _stop_descendants(but: set[int]) -> set[int]:
    stopped: set[int] = set()
    while new := _descendants(os.getpid()) - stopped - but:
        for pid in new:
            _send(pid, signal.SIGSTOP)
        stopped |= new
    return stopped


def _descendants(pid: int) -> set[int]:
    """Return the pids of a process's children and their children."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            # The process's name comes first, and may contain spaces and parentheses.
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(OSError):  # it ended meanwhile, or is another user's
        os.kill(pid, number)
