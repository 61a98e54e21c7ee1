"""Memory that a pool and one of its children share: what the child runs, until when.

The child writes what it runs and its deadline, the parent the reason of an interruption. No lock: the
deadline is written last and cleared first, and only a slot with a deadline is looked at.
"""

from __future__ import annotations

import json
import mmap
import struct
import threading
from dataclasses import dataclass

from wsgi_timeout.errors import ConfigurationError

_HEADER = struct.Struct("=BBII")
_COUNTS = struct.Struct("=II")
_COUNTS_OFFSET = 2
_SLOT = struct.Struct("=dI80s16s")
_OFFER_BYTES = 4096
_DEADLINE = struct.Struct("=d")
_REASON_OFFSET = _SLOT.size - 16


@dataclass(frozen=True, slots=True)
class Running:
    """A call in a slot; `deadline` in seconds of the machine's monotonic clock."""

    slot: int
    deadline: float
    attempt: int
    call_id: str


class Board:
    """One child's slots, one per call that it may run at a time."""

    def __init__(self, slots: int) -> None:
        """Make the board before the fork: both sides then see the same memory."""
        self.slots = slots
        self._lock = threading.Lock()
        self._memory = mmap.mmap(-1, _HEADER.size + slots * _SLOT.size + _OFFER_BYTES)

    def offer(self, name: str, queues: tuple[str, ...]) -> None:
        """Tell the parent the name of the target that was loaded, and the queues of its functions."""
        text = json.dumps([name, queues]).encode()
        if len(text) > _OFFER_BYTES:
            raise ConfigurationError(f"{len(queues)} queues are more than one target can have")
        self._memory[-_OFFER_BYTES:] = text.ljust(_OFFER_BYTES, b"\0")

    def offered(self) -> tuple[str, tuple[str, ...]]:
        """Return what `offer` was given; only of a child that is ready."""
        name, queues = json.loads(self._memory[-_OFFER_BYTES:].rstrip(b"\0"))
        return name, tuple(queues)

    @property
    def ready(self) -> bool:
        """Whether the child has loaded the app and takes calls."""
        return bool(self._memory[0])

    @ready.setter
    def ready(self, value: bool) -> None:
        self._memory[0] = int(value)

    @property
    def suspended(self) -> bool:
        """Whether `rq suspend` was called: no call is taken."""
        return bool(self._memory[1])

    @suspended.setter
    def suspended(self, value: bool) -> None:
        self._memory[1] = int(value)

    def begin(self, slot: int, call_id: str, attempt: int, deadline: float) -> None:
        start = self._start(slot)
        _SLOT.pack_into(self._memory, start, 0.0, attempt, call_id.encode(), b"")
        _DEADLINE.pack_into(self._memory, start, deadline)

    def clear(self, slot: int, *, failed: bool) -> None:
        """Note that a call has ended, and how."""
        _DEADLINE.pack_into(self._memory, self._start(slot), 0.0)
        with self._lock:
            succeeded, failures = self.counts()
            _COUNTS.pack_into(self._memory, _COUNTS_OFFSET, succeeded + (not failed), failures + failed)

    def counts(self) -> tuple[int, int]:
        """Return how many calls have succeeded and failed, as RQ counts them."""
        succeeded, failures = _COUNTS.unpack_from(self._memory, _COUNTS_OFFSET)
        return succeeded, failures

    def running(self) -> list[Running]:
        found = []
        for slot in range(self.slots):
            deadline, attempt, call_id, _ = _SLOT.unpack_from(self._memory, self._start(slot))
            if deadline:
                found.append(Running(slot, deadline, attempt, call_id.rstrip(b"\0").decode()))
        return found

    def interrupt(self, slot: int, reason: str) -> None:
        """Leave the reason that the child's signal handler will find."""
        at = self._start(slot) + _REASON_OFFSET
        self._memory[at : at + 16] = reason.encode().ljust(16, b"\0")

    def reason(self, slot: int) -> str:
        at = self._start(slot) + _REASON_OFFSET
        return self._memory[at : at + 16].rstrip(b"\0").decode()

    @staticmethod
    def _start(slot: int) -> int:
        return _HEADER.size + slot * _SLOT.size
