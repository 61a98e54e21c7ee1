"""The processes that a handler has started, to be ended with it (Linux: elsewhere none is found)."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Return all processes below one; not those that made themselves independent of it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            # The name before it may hold spaces and parentheses.
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
    """End processes at once, and what they have started meanwhile."""
    for pid in pids:
        late = [each for each in descendants(pid) if each not in pids]
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        kill_all(late)
