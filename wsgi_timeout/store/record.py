"""The value types of calls: a new call, its attempts, its state at one moment, its outcome."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from wsgi_timeout.compat import Self, StrEnum
from wsgi_timeout.errors import (
    CallCancelled,
    CallFailed,
    CallTimedOut,
    ConfigurationError,
    HandlerRaised,
    WorkerLost,
)
from wsgi_timeout.store.messages import CallRequest, FunctionRequest, OtherVersion, ResponseHead

#: More than any number of ours, as Lua's numbers are exact so far.
_MOST = 1 << 53
#: Methods that may run again after a worker died (RFC 9110 section 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


class Outcome(StrEnum):
    """How a call ended."""

    DONE = "done"
    RAISED = "raised"
    BROKEN = "broken"
    LOST = "lost"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    UNREAD = "unread"


_FAILURES: dict[Outcome, type[CallFailed]] = {
    Outcome.RAISED: HandlerRaised,
    Outcome.LOST: WorkerLost,
    Outcome.TIMEOUT: CallTimedOut,
    Outcome.CANCELLED: CallCancelled,
}


def failure_of(outcome: Outcome) -> type[CallFailed]:
    """Return the error for a call that ended with this outcome, and without a response."""
    return _FAILURES.get(outcome, CallFailed)


def text(raw: bytes) -> str:
    """Decode bytes from Redis for logs or comparisons; never raises, whatever they are."""
    return raw.decode(errors="backslashreplace")


def number(raw: bytes | str | None) -> int:
    """Return a value from Redis as an integer; 0 if it is none, or none that we write."""
    try:
        found = int(raw or 0)
    except ValueError:
        return 0
    return found if abs(found) < _MOST else 0


def new_id() -> str:
    """Return a public call id, 128 random bits. RQ allows letters, digits, `_` and `-`."""
    return "fc-" + secrets.token_urlsafe(16)


def new_token() -> str:
    """Return the secret part of a result URL: 192 random bits."""
    return secrets.token_urlsafe(24)


def new_names() -> tuple[str, str]:
    """Return an id and a token, from one look at the system's random bits."""
    text = secrets.token_urlsafe(16 + 2 + 24)  # of each three bytes four characters
    return f"fc-{text[:22]}", text[24:]


def now_ms() -> int:
    """Return the wall clock in ms since 1970, for people to read; durations use the monotonic clock."""
    return time.time_ns() // 1_000_000


def outcome_of(raw: bytes) -> Outcome:
    """Return the outcome that Redis names; `LOST` for one that this version does not know."""
    try:
        return Outcome(text(raw))
    except ValueError:
        return Outcome.LOST


@dataclass(frozen=True, slots=True)
class Origin:
    """What a call's record says of the request that made it; empty for a function call."""

    #: What it asked for: a packed `http.asked.Asked`.
    asked: bytes = b""
    #: The pattern that it was captured by.
    route: str = ""
    #: Its X-Request-ID, as it may stand in logs.
    request_id: str = ""

    FIELDS: ClassVar = ("asked", "route", "request_id")

    @classmethod
    def read(cls, values: Iterable[bytes | None]) -> Self:
        asked, route, request_id = values
        return cls(asked or b"", text(route or b"*"), text(request_id or b""))

    def fields(self) -> dict[str, bytes | str]:
        """Return what the record keeps of it: nothing of what is empty."""
        found = {name: getattr(self, name) for name in self.FIELDS}
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True, slots=True)
class NewCall:
    """A call that is to be queued."""

    id: str
    token: str
    #: The path on which its result URL is valid.
    path: str
    method: str
    request: CallRequest | FunctionRequest
    max_attempts: int
    max_queued: int
    #: Seconds that it may wait for a worker.
    queue_ttl: float
    #: How many bytes all calls of the name may keep in Redis.
    max_buffered_bytes: int
    #: The key under which a body, or arguments, too large for the request were stored; empty: none.
    payload_key: str = ""
    #: Bytes stored there that were not counted when they were written.
    payload_bytes: int = 0
    #: Whether the call is refused while no live worker could run it.
    needs_worker: bool = True
    origin: Origin = Origin()
    #: Seconds after its acceptance in which nobody is told its result URL. A small response that comes within
    #: them is kept as long as the client may wait for it, and not for `result_ttl`.
    untold_seconds: float = 0.0
    #: Its client has closed the connection already, and it changes nothing.
    left: bool = False
    #: Seconds after which it is ended if nobody asks for it; 0: never.
    abandon_after: float = 0.0
    #: The key of a note: if there is one, the call is not accepted (`store.first_waits`); empty: none.
    first_wait: str = ""
    #: Whether it is accepted, begun and ended only when that is on disk.
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Times:
    """When a call was accepted, and how far its last attempt is; in ms since 1970, 0: not (yet)."""

    created: int = 0
    #: When it was queued again, for another attempt.
    queued: int = 0
    #: When a worker took it.
    started: int = 0
    ended: int = 0

    FIELDS: ClassVar = ("created", "queued", "started", "ended")

    @classmethod
    def read(cls, values: Iterable[bytes | None]) -> Self:
        return cls(*map(number, values))

    @property
    def queue_seconds(self) -> float | None:
        """How long it waited in the queue before its last attempt, or until it ended there."""
        return _seconds_between(self.queued or self.created, self.started or self.ended)

    @property
    def run_seconds(self) -> float | None:
        """How long its last attempt ran; None: it runs still, or never began."""
        return _seconds_between(self.started, self.ended)


def _seconds_between(start: int, end: int) -> float | None:
    # The clocks of two machines differ: what ended has not begun later.
    return max(0, end - start) / 1000 if start and end else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A call at one moment; `state` is None if there is no such call, or its record has expired."""

    state: str | None
    outcome: Outcome | None
    detail: str
    attempt: int
    head: ResponseHead | None
    #: A small response body; None: the body is in the stream of `attempt`.
    body: bytes | None
    delivered_ms: int | None
    #: Filled by `authorize` only.
    origin: Origin = Origin()
    #: Whether nobody may be told of its end before that is on disk.
    durable: bool = False
    times: Times = Times()

    FIELDS: ClassVar = (
        *("state", "outcome", "detail", "attempt", "head", "body", "delivered", "durable"),
        *Times.FIELDS,
    )

    @classmethod
    def read(cls, values: list[bytes | None], origin: Origin = Origin()) -> Self:
        state, outcome, detail, attempt, head, body, delivered, durable, *times = values
        try:
            unpacked = ResponseHead.unpack(head) if head else None
        except OtherVersion:
            # Its response is of another wire version: to this process it looks like a running call.
            return cls("running", None, "", number(attempt), None, None, None, origin)
        return cls(
            text(state) if state else None,
            outcome_of(outcome) if outcome else None,
            (detail or b"").decode(errors="replace"),
            number(attempt),
            unpacked,
            body,
            number(delivered) if delivered else None,
            origin,
            bool(durable),
            Times.read(times),
        )

    @classmethod
    def carried(cls, message: bytes) -> Self | None:
        """Unpack a small response that came with a wake, see `finish.lua`; None if it cannot be read."""
        try:
            stamps, size, rest = message.split(b" ", 2)
            attempt, *times = stamps.split(b":")
            head, body = ResponseHead.unpack(rest[: int(size)]), rest[int(size) :]
            known = Times.read(times)
            return cls("ended", Outcome.DONE, "", int(attempt), head, body, None, times=known)
        except (ValueError, TypeError, ConfigurationError):
            return None

    @property
    def ended(self) -> bool:
        return self.state == "ended"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a call by one worker; `number` counts from 1."""

    call_id: str
    number: int
    worker: str
    #: Seconds that its call waited in the queue before this run.
    queue_seconds: float = field(default=0.0, compare=False)
    #: Whether its call is begun and ended only when that is on disk.
    durable: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Taken:
    """An attempt that a worker has started."""

    attempt: Attempt
    #: The packed request.
    request: bytes
    #: Whether others waited in the queue when it was queued, so that some may wait behind it.
    more: bool
    #: Proves that a process of ours has made the request: see `seals`.
    seal: bytes = b""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is kept of a delivered call."""

    delivered_ms: int
    origin: Origin = Origin()
