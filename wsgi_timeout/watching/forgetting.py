"""Deletes what is kept of calls that have ended and that nobody can ask for: many in one command."""

from __future__ import annotations

import time
from collections import deque

from wsgi_timeout.store.calls import forget
from wsgi_timeout.store.connection import Commands, Scripts

#: Seconds between two commands: one for each call would cost as much as the calls.
_PAUSE_SECONDS = 0.1
#: How many calls one command deletes.
_BATCH = 1000


class Forgetting:
    """The calls that are to be deleted; true while there are any."""

    def __init__(self) -> None:
        #: Name, id and last attempt of each: any thread appends, the listener's takes.
        self._calls: deque[tuple[str, str, int]] = deque()
        self._next = 0.0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, name: str, call_id: str, attempt: int) -> None:
        """Have a call deleted soon; takes no lock."""
        self._calls.append((name, call_id, attempt))

    def forget_due(self, commands: Commands) -> None:
        """Delete them if it is time to; raises what redis-py raises, and keeps what was not deleted."""
        if self._calls and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PAUSE_SECONDS
            self.forget(commands)

    def forget(self, commands: Commands) -> None:
        """Delete all that were there when this began; as `forget_due`."""
        calls = [self._calls.popleft() for _ in range(len(self._calls))]
        by_name: dict[str, dict[str, int]] = {}
        for name, call_id, attempt in calls:
            by_name.setdefault(name, {})[call_id] = attempt
        try:
            for name, ended in by_name.items():
                attempts = list(ended.items())
                for start in range(0, len(attempts), _BATCH):
                    forget(Scripts(commands.send), name, dict(attempts[start : start + _BATCH]))
        except BaseException:
            # To delete one twice does no harm.
            self._calls.extend(calls)
            raise
