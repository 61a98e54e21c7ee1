"""The call record: every change of its state is one Lua script, idempotent and fenced by attempt.

    queued --take--> running --finish--> ended
       ^                |
       +----recover-----+          end: from any state, by cancel, timeout or loss

A record's `attempt` counts its runs. A worker that was given up for dead still knows its old number,
and every write of an old number is refused.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgpack
import redis

from wsgi_timeout.compat import Self, StrEnum
from wsgi_timeout.errors import Fenced, NoWorker, QueueFull, RedisUnavailable
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.connection import SOCKET_TIMEOUT, Commands, Scripts
from wsgi_timeout.store.messages import CallRequest, FunctionRequest, ResponseHead

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


#: Seconds of a record's TTL for what comes between its runs: leases, retries, outages.
_SPARE_SECONDS = 600.0

#: Milliseconds in which a call may be accepted after it was sent: less than its sender waits for a reply.
_ACCEPTED_MS = int(SOCKET_TIMEOUT * 1000) - 500

_STATUS_FIELDS = (
    "state",
    "seq",
    "name",
    "outcome",
    "attempt",
    "created",
    "started",
    "ended",
    "delivered",
    "due",
    "progress",
)


def new_id() -> str:
    """Return a public call id, 128 random bits. RQ allows letters, digits, `_` and `-`."""
    return "fc-" + secrets.token_urlsafe(16)


def new_token() -> str:
    """Return the secret part of a result URL: 192 random bits."""
    return secrets.token_urlsafe(24)


def now_ms() -> int:
    """Return wall-clock time in ms since 1970, for people to read; durations use the monotonic clock."""
    return time.time_ns() // 1_000_000


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class NewCall:
    """What `Calls.enqueue` accepts."""

    id: str
    token: str
    #: The local path on which its result URL is valid.
    path: str
    method: str
    request: CallRequest | FunctionRequest
    max_attempts: int
    max_queued: int
    #: Seconds that it may wait for a worker.
    queue_ttl: float
    #: The key where what did not fit into the request lies already; empty: all did.
    beside: str = ""
    #: Whether it is refused while nobody lives who could run it.
    needs_worker: bool = True


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a call is at one moment; `state` is None if there is no such call (any more)."""

    state: str | None
    outcome: Outcome | None
    detail: str
    attempt: int
    head: ResponseHead | None
    #: The whole response body; None: it is in the stream of `attempt`.
    body: bytes | None
    delivered_ms: int | None

    FIELDS = ("state", "outcome", "detail", "attempt", "head", "body", "delivered")

    @classmethod
    def read(cls, values: list[bytes | None]) -> Self:
        state, outcome, detail, attempt, head, body, delivered = values
        return cls(
            state.decode() if state else None,
            Outcome(outcome.decode()) if outcome else None,
            (detail or b"").decode(errors="replace"),
            int(attempt or 0),
            ResponseHead.unpack(head) if head else None,
            body,
            int(delivered) if delivered else None,
        )

    @classmethod
    def carried(cls, message: bytes) -> Self:
        """Read a small whole response that came with the wake: see `finish.lua`."""
        attempt, size, rest = message.split(b" ", 2)
        head = ResponseHead.unpack(rest[: int(size)])
        return cls("ended", Outcome.DONE, "", int(attempt), head, rest[int(size) :], None)

    @property
    def ended(self) -> bool:
        return self.state == "ended"


@dataclass(frozen=True, slots=True)
class Taken:
    """An attempt that a worker has started."""

    call_id: str
    attempt: int
    #: The packed request.
    request: bytes
    #: Whether other calls wait in the queue.
    more: bool


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What stays of a delivered call."""

    delivered_ms: int


class Calls:
    """The calls of one name in one Redis."""

    def __init__(self, client: redis.Redis, name: str, send: Callable[..., Any] | None = None) -> None:
        """Take a client, and another way to send one command than `Commands.send`, if there is one."""
        self.redis: Any = client  # redis-py's annotations know no bytes
        self.name = name
        self._send = send or Commands(client).send
        self._send_once = Commands(client, retries=0).send
        self.scripts = Scripts(self._send)
        #: How far Redis' clock is ahead of our monotonic one; None: not known yet, or not any more.
        self._ahead_ms: int | None = None
        self._queue = rq_state.queue_key(name)
        self._started = rq_state.started_key(name)
        self._leases = keys.leases(name)
        self._sequence = keys.sequence(name)

    # -- the web half

    def enqueue(self, call: NewCall, inbox: str = "") -> None:
        """Accept a call; raises `NoWorker` or `QueueFull` if nothing was accepted."""
        request = call.request
        record = {
            "name": self.name,
            "token": call.token,
            "path": call.path.encode(),
            "method": call.method,
            "request": request.pack(),
            "created": now_ms(),
            "max_attempts": call.max_attempts,
            "queue_ttl": int(call.queue_ttl * 1000),
            "expires": now_ms() + int(call.queue_ttl * 1000),
            "repeatable": int(call.method in IDEMPOTENT),
            "result_ttl": int(request.result_ttl),
        }
        if inbox:
            record["inboxes"] = inbox
        description = f"{call.method} {call.path}"
        job = rq_state.job_fields(self.name, call.id, description, request.timeout)
        # Longer than it may wait and run: what ends it is recorded, its record does not just go.
        runs = call.max_attempts + (request.retries if isinstance(request, FunctionRequest) else 0)
        ttl = int(runs * (call.queue_ttl + request.timeout + _SPARE_SECONDS))
        values = [word for mapping in (record, job) for item in mapping.items() for word in item]
        touched = [keys.call(call.id), self._queue, rq_state.job_key(call.id), self._leases, self._sequence]
        if call.beside:
            touched.append(call.beside)
        for _ in range(2):
            head = [call.id, call.max_queued, ttl, int(call.needs_worker), self._last_moment()]
            answer = self.scripts.run("enqueue", touched, [*head, len(record) * 2, *values])
            if answer != b"late":
                break
            # Unless the server's clock was set anew.
            self._ahead_ms = None
        else:
            raise RedisUnavailable("Redis took too long to accept the call")
        if answer == b"no worker":
            raise NoWorker(
                f"no live worker serves {self.name!r}: start one with `wsgi-timeout worker TARGET`"
            )
        if answer == b"lost":
            raise RedisUnavailable("Redis has lost what was to be sent with the call")
        if answer == b"full":
            raise QueueFull(f"{call.max_queued} calls wait for a worker of {self.name!r} already")

    def _last_moment(self) -> int:
        """Return the ms of Redis' clock until which a command sent now may be executed."""
        # Not against our wall clock: set forward it would allow as much more.
        ahead_ms = self._ahead_ms
        if ahead_ms is None:
            seconds, microseconds = self._send("TIME")
            ahead_ms = int(seconds) * 1000 + int(microseconds) // 1000 - _monotonic_ms()
            self._ahead_ms = ahead_ms
        return _monotonic_ms() + ahead_ms + _ACCEPTED_MS

    def look(self, call_id: str) -> Snapshot:
        """Return what a call is now."""
        return Snapshot.read(self._send("HMGET", keys.call(call_id), *Snapshot.FIELDS))

    def join(self, call_id: str, inbox: str) -> Snapshot:
        """Make `inbox` one of those that the call wakes, and return what it is now."""
        values = self.scripts.run("join", [keys.call(call_id)], [inbox, *Snapshot.FIELDS])
        return Snapshot.read(values)

    def authorize(self, call_id: str, token: str, path: str) -> Snapshot | Tombstone | None:
        """Return the call that a token on a path opens; None for an unknown id, token or path, all alike.

        So it is for a call of another name: its app may ask for a login where this one does not.
        """
        record = keys.call(call_id)
        pipe = self.redis.pipeline(transaction=False)
        pipe.hmget(record, ("token", "path", "name", *Snapshot.FIELDS))
        pipe.get(keys.tombstone(call_id))
        (known, its_path, name, *values), grave = pipe.execute()
        if known is not None:
            same = hmac.compare_digest(known, token.encode()) and its_path == path.encode()
            return Snapshot.read(values) if same and name == self.name.encode() else None
        if grave is not None:
            delivered_ms, digest = msgpack.unpackb(grave)
            if hmac.compare_digest(digest, self._digest(token, path)):
                return Tombstone(delivered_ms)
        return None

    def status(self, call_id: str) -> dict[str, Any]:
        """Return the call's times, progress and place in the queue; no body is read, cost is constant."""
        position, values = self.scripts.run("status", [keys.call(call_id)], list(_STATUS_FIELDS))
        found = {
            field: value.decode()
            for field, value in zip(_STATUS_FIELDS, values, strict=True)
            if value is not None
        }
        if found.get("state") == "queued":
            found["position"] = position
        return found

    @staticmethod
    def kept(call_id: str, attempt: int) -> tuple[str, ...]:
        """Return the keys of a call that has ended: to be deleted once nobody can ask for it."""
        return (keys.call(call_id), keys.request_body(call_id), keys.response_body(call_id, attempt))

    def deliver(self, call_id: str, token: str, path: str, attempt: int, grace: float) -> None:
        """Note that the response was sent in full: it stays for `grace` seconds, and then a tombstone."""
        self.scripts.run(
            "deliver",
            [
                keys.call(call_id),
                keys.request_body(call_id),
                keys.response_body(call_id, attempt),
                keys.tombstone(call_id),
            ],
            [
                now_ms(),
                int(grace * 1000),
                msgpack.packb([now_ms(), self._digest(token, path)]),
                keys.TOMBSTONE_TTL,
            ],
        )

    def end(
        self,
        call_id: str,
        outcome: Outcome,
        detail: str,
        result_ttl: float | None,
        attempt: int | None = None,
    ) -> bool:
        """End a call from outside its handler; returns False if it had ended, or never was.

        `result_ttl`: seconds that this is told to who asks; None: what the call was made with.
        """
        answer = self.scripts.run(
            "end",
            [keys.call(call_id), rq_state.job_key(call_id)],
            [
                call_id,
                now_ms(),
                outcome,
                detail,
                "" if result_ttl is None else int(result_ttl),
                "" if attempt is None else attempt,
            ],
        )
        return bool(answer[0] == b"ok")

    def _digest(self, token: str, path: str) -> bytes:
        return sha256(f"{token} {self.name} {path}".encode()).digest()[:16]

    # -- the worker half

    def pop(self, worker: str, seconds: float) -> str | None:
        """Wait for a queued call, and move it to what the worker holds; None: there was none.

        Not sent again when the reply was lost: the worker then looks at what it holds.
        """
        moved = self._send_once("BLMOVE", self._queue, keys.held(worker), "LEFT", "RIGHT", seconds)
        return moved.decode() if moved else None

    def take(self, call_id: str, worker: str, *, stock: bool = False) -> Taken | None:
        """Start an attempt of a held call, or with an empty id of the queue's next; None: nothing to run."""
        answer = self.scripts.run(
            "take",
            [self._queue, self._started, keys.held(worker)],
            [call_id, worker, now_ms(), rq_state.timestamp(), "1" if stock else ""],
        )
        return Taken(answer[0].decode(), int(answer[1]), answer[2], bool(answer[3])) if answer else None

    def hold(self, call_id: str, worker: str) -> None:
        """Note that a worker has a call which it did not move from the queue itself."""
        pipe = self.redis.pipeline()
        pipe.lrem(keys.held(worker), 0, call_id)
        pipe.rpush(keys.held(worker), call_id)
        pipe.execute()

    def give_back(self, call_id: str, worker: str) -> bool:
        """Put a held call back to the front of the queue if it was not started; says whether it did."""
        touched = [keys.held(worker), self._queue, keys.call(call_id)]
        return bool(self.scripts.run("put_back", touched, [call_id]))

    def put_back(self, call_id: str) -> None:
        """Put a call back that a stock worker of RQ popped and did not start."""
        popped = rq_state.intermediate_key(self.name)
        self.scripts.run("put_back", [popped, self._queue, keys.call(call_id)], [call_id])

    def revive(self, call_id: str) -> bool:
        """Queue a call again that a stock worker of RQ failed before it began; says whether it was one."""
        failed, job = rq_state.failed_key(self.name), rq_state.job_key(call_id)
        return bool(self.scripts.run("revive", [failed, self._queue, keys.call(call_id), job], [call_id]))

    def store(self, call_id: str, attempt: int, number: int, chunk: bytes) -> None:
        """Keep a chunk of an attempt's large result; raises `Fenced` if it is no longer the current one."""
        touched = [keys.value(call_id, attempt), keys.call(call_id)]
        if self.scripts.run("store", touched, [attempt, number, chunk]) == b"fenced":
            raise _fenced(call_id, attempt)

    def finish(
        self,
        call_id: str,
        worker: str,
        attempt: int,
        outcome: Outcome,
        result_ttl: float,
        *,
        detail: str = "",
        response: tuple[ResponseHead, bytes] | None = None,
        streamed: int = 0,
        value: bytes | None = None,
        chunks: int = 0,
    ) -> None:
        """End an attempt with its outcome; raises `Fenced` if it is no longer the current one.

        `response` is a small whole one; another one's body lies in the attempt's stream, in `streamed`
        chunks. If Redis has lost some of them, the outcome is `BROKEN`.
        `value` is a function's small result; a large one lies in so many `chunks`.
        """
        fields: list[Any] = []
        if response:
            fields = ["head", response[0].pack(), "body", response[1]]
        if value is not None:
            fields = ["body", value]
        if chunks:
            fields = ["chunks", chunks]
        answer = self.scripts.run(
            "finish",
            [
                keys.call(call_id),
                rq_state.job_key(call_id),
                self._started,
                keys.held(worker),
                keys.response_body(call_id, attempt),
            ],
            [
                call_id,
                worker,
                attempt,
                now_ms(),
                outcome,
                detail,
                int(result_ttl),
                streamed or "",
                *fields,
            ],
        )
        if answer == b"fenced":
            raise _fenced(call_id, attempt)

    def register(self, worker: str, pool_inbox: str, info: dict[str, str], birth: dict[str, Any]) -> None:
        """Make a worker known: its lease, what it serves (`info`), and its `birth` as RQ records it."""
        key = rq_state.worker_key(worker)
        args: list[Any] = [
            worker,
            pool_inbox,
            keys.WORKER_TTL,
            self._queue,
            key,
            len(info) * 2,
        ]
        for mapping in (info, birth):
            for item in mapping.items():
                args.extend(item)
        self.scripts.run(
            "register",
            [
                self._leases,
                keys.worker(worker),
                rq_state.WORKERS,
                rq_state.workers_of_queue_key(self.name),
                rq_state.QUEUES,
                key,
                keys.held(worker),
            ],
            args,
        )

    def renew(self, workers: list[str]) -> list[str]:
        """Raise the leases of live workers; return those whose lease was lost to a recovery."""
        args = [rq_state.timestamp(), keys.WORKER_TTL, *workers]
        return [worker.decode() for worker in self.scripts.run("renew", [self._leases], args)]

    def progress(self, call_id: str, attempt: int, report: dict[str, Any]) -> None:
        """Note how far an attempt is; `report` is JSON-able."""
        self.scripts.run("progress", [keys.call(call_id)], [attempt, json.dumps(report)])

    def retry(self, call_id: str, worker: str, attempt: int, pause: float, detail: str) -> None:
        """End an attempt of a function, for another one after `pause` seconds; raises `Fenced`."""
        answer = self.scripts.run(
            "retry",
            [
                keys.call(call_id),
                rq_state.job_key(call_id),
                self._started,
                keys.held(worker),
                keys.delayed(self.name),
            ],
            [call_id, worker, attempt, int(pause * 1000), detail],
        )
        if answer == b"fenced":
            raise _fenced(call_id, attempt)

    def release(self) -> None:
        """Queue the calls whose pause before a retry is over."""
        self.scripts.run("release", [keys.delayed(self.name), self._queue, self._sequence], [1000])

    def slots(self) -> int:
        """Return how many worker processes live that take calls of this name."""
        return int(self.redis.hlen(self._leases))

    def recover(self, worker: str, lease: bytes | None, detail: str) -> list[tuple[str, str]] | None:
        """Settle what a dead worker held: `[(call id, "requeued" | "lost" | "dropped")]`, None if it lives.

        `lease` is its counter as it was last seen in Redis; None: its death is certain.
        """
        key = rq_state.worker_key(worker)
        answer = self.scripts.run(
            "recover",
            [
                self._leases,
                keys.held(worker),
                self._queue,
                self._started,
                rq_state.WORKERS,
                rq_state.workers_of_queue_key(self.name),
                key,
                keys.worker(worker),
            ],
            [worker, "" if lease is None else lease, now_ms(), detail, key, keys.FENCE_TTL],
        )
        if answer is None:
            return None
        words = [word.decode() for word in answer]
        return list(zip(words[::2], words[1::2], strict=True))


def _fenced(call_id: str, attempt: int) -> Fenced:
    return Fenced(f"attempt {attempt} of {call_id} is no longer the current one")
