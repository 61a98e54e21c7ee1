"""Finds the processes that a handler has started, to end them with it (on Linux only)."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Return the pids of a process's children and their children; daemons have left this tree."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            # The process's name comes first, and may contain spaces and parentheses.
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def kill_all(pids: list[int]) -> None:
    """Kill processes, and those that they have started meanwhile."""
    for pid in pids:
        late = [each for each in descendants(pid) if each not in pids]
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        kill_all(late)
