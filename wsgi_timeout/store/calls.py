"""The client's half of the call record: queueing a call, looking at it, ending it.

    queued --take--> running --finish--> ended
       ^                |
       +----recover-----+          end: from any state, by cancel, timeout or loss

Every change of a call's state is one idempotent Lua script. A record's `attempt` counts the runs. A worker
that was wrongly taken for dead still has its old number, and scripts refuse writes with an old number.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

import msgpack
import redis

from wsgi_timeout.errors import BytesFull, NoWorker, QueueFull, QueuePaused, RedisUnavailable
from wsgi_timeout.store import keys, rq_state, seals
from wsgi_timeout.store.connection import SOCKET_TIMEOUT, Scripts
from wsgi_timeout.store.messages import CallRequest, FunctionRequest
from wsgi_timeout.store.queue import Queue
from wsgi_timeout.store.record import IDEMPOTENT, NewCall, Outcome, Snapshot, Tombstone, now_ms
from wsgi_timeout.store.redis_errors import UNAVAILABLE, ConnectionLost
from wsgi_timeout.store.status import STATUS_FIELDS, read_status
from wsgi_timeout.store.streams import StreamReader

T = TypeVar("T")

#: Seconds added to a record's TTL for the time between its runs: lost leases, retries, outages.
_SPARE_SECONDS = 600.0

#: Milliseconds after sending in which Redis may still accept a call: less than its sender waits for a reply.
_ACCEPTED_MS = int(SOCKET_TIMEOUT * 1000) - 500
#: Seconds that the end of a call is kept that was refused.
_WITHDRAWN_SECONDS = 60.0
#: How often a call is read whose end Redis loses each time before that is on disk.
_READS = 3


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def forget(scripts: Scripts, name: str, ended: Mapping[str, int]) -> None:
    """Delete what is kept of calls that have ended, by id with the last attempt: nobody can ask for them."""
    doomed: list[str] = []
    for call_id, attempt in ended.items():
        doomed += (keys.call(call_id), keys.request_body(call_id), keys.response_body(call_id, attempt))
    scripts.run("forget", [keys.buffered(name), *doomed], list(ended))


class FirstWaitNoted(Exception):
    """There is a note of such a request: its call may be one that was left, see `store.first_waits`."""


class Calls(Queue):
    """The calls of one name, for those who send them, wait for them and end them."""

    def __init__(self, client: redis.Redis, name: str, send: Callable[..., Any] | None = None) -> None:
        super().__init__(client, name, send)
        #: How many ms Redis' clock is ahead of our monotonic clock; None: to be asked.
        self._ahead_ms: int | None = None

    def enqueue(self, call: NewCall, inbox: str = "") -> None:
        """Queue a call.

        Raises `NoWorker`, `QueueFull`, `BytesFull` or `FirstWaitNoted` if it was not accepted.
        """
        scripts = self.synced if call.durable else self.scripts
        request = call.request
        packed = request.pack()
        record = self._record(call, packed, inbox)
        description = f"{call.method} {call.path}"
        job = rq_state.job_fields(self.name, call.id, description, request.timeout)
        # Longer than it may wait and run: its record must live until its end was recorded.
        runs = call.max_attempts + (request.retries if isinstance(request, FunctionRequest) else 0)
        ttl = int(runs * (call.queue_ttl + request.timeout + _SPARE_SECONDS))
        if call.left:
            ttl = min(ttl, keys.LEFT_TTL)
        values = [word for mapping in (record, job) for item in mapping.items() for word in item]
        touched = [keys.call(call.id), self._queue, rq_state.job_key(call.id), self._leases, self._sequence]
        touched += [self.buffered, call.first_wait or keys.call(call.id)]
        if call.payload_key:
            touched.append(call.payload_key)
        for _ in range(2):
            head = [call.id, call.max_queued, ttl, int(call.needs_worker), self._last_moment()]
            head += [
                call.max_buffered_bytes,
                len(packed) + call.payload_bytes,
                int(call.untold_seconds * 1000),
                int(call.abandon_after * 1000),
            ]
            answer = scripts.run("enqueue", touched, [*head, len(record) * 2, *values])
            if answer != b"late":
                break
            # Redis' clock may have been changed.
            self._ahead_ms = None
        else:
            raise RedisUnavailable("Redis took too long to accept the call")
        self._check(answer, call)

    def _record(self, call: NewCall, packed: bytes, inbox: str) -> dict[str, Any]:
        """Return the fields of a new call's record; `packed` is its request."""
        record: dict[str, Any] = {
            "name": self.name,
            "token": call.token,
            "path": call.path.encode(),
            "method": call.method,
            "request": packed,
            "created": now_ms(),
            "max_attempts": call.max_attempts,
            "queue_ttl": int(call.queue_ttl * 1000),
            "expires": now_ms() + int(call.queue_ttl * 1000),
            "repeatable": int(call.method in IDEMPOTENT),
            "result_ttl": int(call.request.result_ttl),
        }
        if call.asked:
            record["asked"] = call.asked
        # A function's arguments carry a signature of their own.
        if isinstance(call.request, CallRequest) and (seal := seals.seal(packed, call.id, self.name)):
            record["seal"] = seal
        if call.route:
            record["route"] = call.route
        if inbox:
            record["inboxes"] = inbox
        if call.durable:
            record["durable"] = 1
        if call.abandon_after:
            record["abandon"] = int(call.abandon_after * 1000)
        return record

    def _check(self, answer: bytes, call: NewCall) -> None:
        """Raise the error that says why a call was not accepted."""
        if answer == b"noted":
            raise FirstWaitNoted
        if answer == b"no worker":
            raise NoWorker(
                f"no live worker serves {self.name!r}: start one with `wsgi-timeout worker TARGET`"
            )
        if answer == b"lost":
            raise RedisUnavailable("Redis has lost what was to be sent with the call")
        if answer == b"paused":
            raise QueuePaused(
                f"{call.max_queued} calls wait for a worker of {self.name!r} already, and an operator has "
                f"paused them: `wsgi-timeout resume {self.name}`, or `rq resume`, ends that"
            )
        if answer == b"full":
            raise QueueFull(f"{call.max_queued} calls wait for a worker of {self.name!r} already")
        if answer == b"no room":
            raise BytesFull(
                f"requests and results of {self.name!r} use max_buffered_bytes already, "
                f"{call.max_buffered_bytes} bytes"
            )

    def _last_moment(self) -> int:
        """Return until when, in ms of Redis' clock, a command sent now may be executed."""
        # Not by our wall clock: if it were set forward, the limit would be too late.
        ahead_ms = self._ahead_ms
        if ahead_ms is None:
            seconds, microseconds = self._send("TIME")
            ahead_ms = int(seconds) * 1000 + int(microseconds) // 1000 - _monotonic_ms()
            self._ahead_ms = ahead_ms
        return _monotonic_ms() + ahead_ms + _ACCEPTED_MS

    def withdraw(self, call_id: str) -> None:
        """End a call that was not on disk in time, and is refused; one that has begun meanwhile goes on."""
        detail = "it was not on disk in time, and refused"
        self.end(call_id, Outcome.CANCELLED, detail, _WITHDRAWN_SECONDS, attempt=0)

    def cancel(self, call_id: str, detail: str, result_ttl: float | None) -> bool:
        """End a call as `end` does, as cancelled; what is to be on disk is there then."""
        cancelled, durable = self._end(call_id, Outcome.CANCELLED, detail, result_ttl)
        if durable:
            self.look(call_id)
        return cancelled

    def look(self, call_id: str) -> Snapshot:
        """Return a call's state, outcome and response as they are now; a durable end when it is on disk."""
        return self._told(call_id, lambda: Snapshot.read(self._hmget(call_id, Snapshot.FIELDS)))

    def _hmget(self, call_id: str, fields: tuple[str, ...]) -> list[bytes | None]:
        values: list[bytes | None] = self._send("HMGET", keys.call(call_id), *fields)
        return values

    def _told(self, call_id: str, read: Callable[[], T]) -> T:
        """Return what is read of a call, when nobody can hear of an end that a power cut takes back."""
        for _ in range(_READS):
            found = read()
            if not isinstance(found, Snapshot) or self.is_told(call_id, found):
                return found
        raise ConnectionLost("Redis came back without the end of this call")

    def is_told(self, call_id: str, found: Snapshot) -> bool:
        """Wait until the end of a call is on disk where it is to be; False if the call goes on by now."""
        return not (found.durable and found.ended) or self.is_on_disk(call_id, "ended", found.attempt)

    def reader(self, call_id: str, inbox: str, found: Snapshot, number: int = 0) -> StreamReader:
        """Return what reads the response of a call from chunk `number` on."""
        told = partial(self.is_on_disk, call_id, "ended", found.attempt) if found.durable else None
        return StreamReader(self.scripts, call_id, inbox, found.attempt, number=number, told=told)

    def join(self, call_id: str, inbox: str) -> Snapshot:
        """Have the call wake `inbox` from now on; return its state, which may not be on disk yet."""
        values = self.scripts.run("join", [keys.call(call_id)], [inbox, *Snapshot.FIELDS])
        return Snapshot.read(values)

    def authorize(self, call_id: str, token: str, path: str) -> Snapshot | Tombstone | None:
        """Return a call if id, token, path and name all fit; None otherwise, whichever of them does not.

        A call of another name does not fit: its app may require a login where this one does not.
        """
        return self._told(call_id, lambda: self._authorize(call_id, token, path))

    def _authorize(self, call_id: str, token: str, path: str) -> Snapshot | Tombstone | None:
        record = keys.call(call_id)
        pipe = self.redis.pipeline(transaction=False)
        pipe.hmget(record, ("token", "path", "name", "asked", *Snapshot.FIELDS))
        pipe.get(keys.tombstone(call_id))
        found, grave = pipe.execute(raise_on_error=False)
        for answer in (found, grave):
            if isinstance(answer, UNAVAILABLE):
                raise answer
        if isinstance(found, Exception):
            return None  # the key has another type: no record of ours
        known, its_path, name, asked, *values = found
        if known is not None:
            same = hmac.compare_digest(known, token.encode()) and its_path == path.encode()
            return Snapshot.read(values, asked or b"") if same and name == self.name.encode() else None
        if isinstance(grave, bytes):
            with suppress(ValueError, TypeError, msgpack.UnpackException):  # no tombstone of ours
                delivered_ms, digest, asked, *_ = msgpack.unpackb(grave)
                if hmac.compare_digest(digest, self._digest(token, path)):
                    return Tombstone(int(delivered_ms), asked)
        return None

    def status(self, call_id: str) -> dict[str, Any]:
        """Return the call's times, progress and position in the queue; reads no body, at a constant cost."""
        found = self._status(call_id)
        if found.pop("durable", None) and found.get("state") == "ended":
            self.look(call_id)  # nobody is told before
            found = self._status(call_id)
            found.pop("durable", None)
        return found

    def _status(self, call_id: str) -> dict[str, Any]:
        return read_status(*self.scripts.run("status", [keys.call(call_id)], list(STATUS_FIELDS)))

    def deliver(
        self,
        call_id: str,
        token: str,
        path: str,
        attempt: int,
        grace: float,
        asked: bytes = b"",
        hops: int = 0,
    ) -> None:
        """Note that the response was sent in full: it stays for `grace` seconds, and then a tombstone.

        `hops`: the redirects that led to it.
        """
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
                msgpack.packb([now_ms(), self._digest(token, path), asked, hops]),
                keys.TOMBSTONE_TTL,
                hops,
            ],
        )

    def abandon(self, call_id: str) -> None:
        """Give up a call whose client has left, and whose result URL nobody was told.

        A queued call with a safe method (GET, HEAD) does not run; of any other call no response is kept.
        """
        touched = [keys.call(call_id), rq_state.job_key(call_id), self._queue]
        if self.scripts.run("abandon", touched, [call_id, now_ms()]) == b"ended":
            # Only the current attempt's: bodies of earlier attempts have a TTL.
            forget(self.scripts, self.name, {call_id: self.look(call_id).attempt})

    def tell(self, call_id: str, result_ttl: float) -> None:
        """Record that the result URL was given out before `NewCall.untold_seconds` were over."""
        self.scripts.run("tell", [keys.call(call_id)], [int(result_ttl)])

    def _digest(self, token: str, path: str) -> bytes:
        return sha256(f"{token} {self.name} {path}".encode()).digest()[:16]
