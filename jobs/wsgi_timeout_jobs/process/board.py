"""Memory that a pool and one of its children share: which calls the child runs, and until when.

The child writes its calls and their deadlines, the parent writes why it interrupts one. There is no lock: a
deadline is written last and cleared first, and a slot without one is ignored. Deadlines are written and read
as one machine word within one cache line, since `struct` might copy them byte by byte.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.store.record import Attempt

#: Ready, suspended, leaving, interrupted, loaded; calls that succeeded and failed; the app's process; the
#: lease's last renewal.
_HEADER = struct.Struct("=BBBBB3xIIQd")
_COUNTS = struct.Struct("=II")
_COUNTS_OFFSET = 8
_APP_PID = struct.Struct("=Q")
_APP_PID_OFFSET = 16
_WORD = 8
_RENEWED = (_HEADER.size - _WORD) // _WORD
_ID_BYTES = 80
#: A deadline, an attempt, a call, whether its outcome is recorded, and the reason of an interruption with the
#: attempt and call that it is for.
_SLOT = struct.Struct(f"=dI{_ID_BYTES}s?16sI{_ID_BYTES}s")
_OFFER_BYTES = 4096
_REASON = struct.Struct(f"=16sI{_ID_BYTES}s")
_REASON_OFFSET = _SLOT.size - _REASON.size
_RECORDED_OFFSET = _REASON_OFFSET - 1
#: Bytes of a cache line: a value inside one is written as a whole.
_LINE = 64
_HEADER_BYTES = -(-_HEADER.size // _LINE) * _LINE
_SLOT_BYTES = -(-_SLOT.size // _LINE) * _LINE


@dataclass(frozen=True, slots=True)
class Running:
    """A call in a slot; `deadline` in monotonic seconds, infinite while its outcome is being recorded."""

    slot: int
    deadline: float
    attempt: int
    call_id: str
    #: The outcome is stored; the handler may still run, and the call's record may be gone.
    recorded: bool

    @property
    def attempt_of(self) -> tuple[str, int]:
        """The call's id and its attempt: a retry may run in the same slot as the attempt before it."""
        return self.call_id, self.attempt

    @property
    def settling(self) -> bool:
        """Whether its outcome is being recorded, so that the pool must not end it."""
        return self.deadline == math.inf


class Board:
    """The memory of one child: a slot for each call that it may run at a time, and flags."""

    def __init__(self, slots: int) -> None:
        """Map the memory; to be called before the fork, so that both processes share it."""
        self.slots = slots
        self._lock = threading.Lock()
        self._memory = mmap.mmap(-1, _HEADER_BYTES + slots * _SLOT_BYTES + _OFFER_BYTES)
        self._words = memoryview(self._memory).cast("d")

    def offer(self, name: str, queues: tuple[str, ...]) -> None:
        """Tell the parent the name of the target that was loaded, and the queues of its functions."""
        text = json.dumps([name, queues]).encode()
        if len(text) > _OFFER_BYTES:
            raise ConfigurationError(f"{len(queues)} queues are more than one target can have")
        self._memory[-_OFFER_BYTES:] = text.ljust(_OFFER_BYTES, b"\0")
        self._memory[4] = 1

    def offered(self) -> tuple[str, tuple[str, ...]]:
        """Return what `offer` was given; valid only if the child is ready."""
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
    def app_pid(self) -> int:
        """The pid of the process that runs the app for the child; 0: the child runs it itself."""
        found: int = _APP_PID.unpack_from(self._memory, _APP_PID_OFFSET)[0]
        return found

    @app_pid.setter
    def app_pid(self, value: int) -> None:
        _APP_PID.pack_into(self._memory, _APP_PID_OFFSET, value)

    @property
    def suspended(self) -> bool:
        """Whether `rq suspend` was called: no call is taken."""
        return bool(self._memory[1])

    @suspended.setter
    def suspended(self, value: bool) -> None:
        self._memory[1] = int(value)

    @property
    def leaving(self) -> bool:
        """Whether the child takes no more calls, and ends once its running calls have ended."""
        return bool(self._memory[2])

    @leaving.setter
    def leaving(self, value: bool) -> None:
        self._memory[2] = int(value)

    @property
    def interrupted(self) -> bool:
        """Whether a handler was interrupted in the child, which therefore takes no other call."""
        return bool(self._memory[3])

    @property
    def loaded(self) -> bool:
        """Whether the child has loaded the app; a spare one takes no calls yet."""
        return bool(self._memory[4])

    @property
    def renewed(self) -> float:
        """When the child's lease was last renewed, in monotonic seconds."""
        return self._words[_RENEWED]

    @renewed.setter
    def renewed(self, value: float) -> None:
        self._words[_RENEWED] = value

    def begin(self, slot: int, attempt: Attempt, deadline: float) -> None:
        """Note that an attempt runs; `deadline` in seconds of the monotonic clock."""
        start, call_id = self._start(slot), attempt.call_id.encode()
        _SLOT.pack_into(self._memory, start, 0.0, attempt.number, call_id, False, b"", 0, b"")
        self._words[start // _WORD] = deadline

    @contextmanager
    def settling(self, slot: int) -> Iterator[None]:
        """Keep the parent from ending a call while its outcome is recorded, however long Redis is away."""
        word = self._start(slot) // _WORD
        deadline, self._words[word] = self._words[word], math.inf
        try:
            yield
        finally:
            # The handler may go on, and then has its deadline again.
            self._words[word] = deadline

    def recorded(self, slot: int) -> None:
        """Note that a call has its outcome, though its handler may go on."""
        self._memory[self._start(slot) + _RECORDED_OFFSET] = 1

    def clear(self, slot: int, *, failed: bool) -> None:
        """Note that a call has ended, and how."""
        self._words[self._start(slot) // _WORD] = 0.0
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
            start = self._start(slot)
            if deadline := self._words[start // _WORD]:
                _, attempt, call_id, recorded, *_ = _SLOT.unpack_from(self._memory, start)
                found.append(Running(slot, deadline, attempt, call_id.rstrip(b"\0").decode(), recorded))
        return found

    def interrupt(self, running: Running, reason: str) -> None:
        """Write why a call is interrupted, for the child's signal handler; the child takes no more calls."""
        self._memory[3] = 1
        at = self._start(running.slot) + _REASON_OFFSET
        _REASON.pack_into(self._memory, at, reason.encode(), running.attempt, running.call_id.encode())

    def reason(self, slot: int) -> str:
        """Return why the call in a slot is interrupted; empty if it is not."""
        _, attempt, call_id, _, reason, *meant = _SLOT.unpack_from(self._memory, self._start(slot))
        # The child may have begun another call, or another attempt, since the parent wrote.
        return reason.rstrip(b"\0").decode() if meant == [attempt, call_id] else ""

    @staticmethod
    def _start(slot: int) -> int:
        return _HEADER_BYTES + slot * _SLOT_BYTES
