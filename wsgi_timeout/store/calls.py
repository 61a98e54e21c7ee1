"""The client's half of the call record: looking at a call, waiting for it, ending it.

    queued --take--> running --finish--> ended
       ^                |
       +----recover-----+          end: from any state, by cancel, timeout or loss

Every change of a call's state is one idempotent Lua script. A record's `attempt` counts the runs. A worker
that was wrongly taken for dead still has its old number, and scripts refuse writes with an old number.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

import msgpack

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.connection import Scripts
from wsgi_timeout.store.enqueue import Enqueueing
from wsgi_timeout.store.record import Origin, Outcome, Snapshot, Tombstone, now_ms
from wsgi_timeout.store.redis_errors import UNAVAILABLE, ConnectionLost
from wsgi_timeout.store.status import STATUS_FIELDS, read_status
from wsgi_timeout.store.streams import StreamReader

T = TypeVar("T")

#: How often a call is read again when Redis comes back without its end, before that was on disk.
_READS = 3


def forget(scripts: Scripts, name: str, ended: Mapping[str, int]) -> None:
    """Delete what is kept of calls that have ended, by id with the last attempt: nobody can ask for them."""
    doomed: list[str] = []
    for call_id, attempt in ended.items():
        doomed += (keys.call(call_id), keys.request_body(call_id), keys.response_body(call_id, attempt))
    scripts.run("forget", [keys.buffered(name), *doomed], list(ended))


class Calls(Enqueueing):
    """The calls of one name, for those who send them, wait for them and end them."""

    def cancel(self, call_id: str, detail: str, result_ttl: float | None) -> bool:
        """End a call as `end` does, as cancelled; what is to be on disk is there then."""
        cancelled, durable = self._end(call_id, Outcome.CANCELLED, detail, result_ttl)
        if durable:
            self.look(call_id)
        return cancelled

    def look(self, call_id: str) -> Snapshot:
        """Return a call's state, outcome and response as they are now; a durable end when it is on disk."""
        return self._read_durably(call_id, lambda: Snapshot.read(self._hmget(call_id, Snapshot.FIELDS)))

    def _hmget(self, call_id: str, fields: tuple[str, ...]) -> list[bytes | None]:
        values: list[bytes | None] = self._send("HMGET", keys.call(call_id), *fields)
        return values

    def _read_durably(self, call_id: str, read: Callable[[], T]) -> T:
        """Return what `read` finds of a call; a durable end only once no power cut can take it back."""
        for _ in range(_READS):
            found = read()
            if not isinstance(found, Snapshot) or self._end_is_on_disk(call_id, found):
                return found
        raise ConnectionLost("Redis came back without the end of this call")

    def _end_is_on_disk(self, call_id: str, found: Snapshot) -> bool:
        """Wait until the end of a call is on disk where it is to be; False if the call goes on by now."""
        return not (found.durable and found.ended) or self.is_on_disk(call_id, "ended", found.attempt)

    def reader(self, call_id: str, inbox: str, found: Snapshot, number: int = 0) -> StreamReader:
        """Return what reads the response of a call from chunk `number` on."""
        on_disk = partial(self.is_on_disk, call_id, "ended", found.attempt) if found.durable else None
        return StreamReader(self.scripts, call_id, inbox, found.attempt, number=number, on_disk=on_disk)

    def join(self, call_id: str, inbox: str) -> Snapshot:
        """Have the call wake `inbox` from now on; return its state, which may not be on disk yet."""
        return Snapshot.read(self.join_and_read(call_id, inbox, Snapshot.FIELDS))

    def join_and_read(self, call_id: str, inbox: str, fields: Sequence[str]) -> list[bytes | None]:
        """Do as `join`; return fields of its record, of which the first is to be `state`."""
        values: list[bytes | None] = self.scripts.run("join", [keys.call(call_id)], [inbox, *fields])
        return values

    def authorize(self, call_id: str, token: str, path: str) -> Snapshot | Tombstone | None:
        """Return a call if id, token, path and name all fit; None otherwise, whichever of them does not.

        A call of another name does not fit: its app may require a login where this one does not.
        """
        return self._read_durably(call_id, lambda: self._authorize(call_id, token, path))

    def _authorize(self, call_id: str, token: str, path: str) -> Snapshot | Tombstone | None:
        record = keys.call(call_id)
        pipe = self.redis.pipeline(transaction=False)
        pipe.hmget(record, ("token", "path", "name", *Origin.FIELDS, *Snapshot.FIELDS))
        pipe.hget(keys.tombstones(self.name), call_id)
        found, grave = pipe.execute(raise_on_error=False)
        for answer in (found, grave):
            if isinstance(answer, UNAVAILABLE):
                raise answer
        if isinstance(found, Exception):
            return None  # the key has another type: no record of ours
        known, its_path, name, *rest = found
        if known is not None:
            same = hmac.compare_digest(known, token.encode()) and its_path == path.encode()
            if not same or name != self.name.encode():
                return None
            split = len(Origin.FIELDS)
            return Snapshot.read(rest[split:], Origin.read(rest[:split]))
        if isinstance(grave, bytes):
            with suppress(ValueError, TypeError, msgpack.UnpackException):  # no tombstone of ours
                delivered_ms, digest, asked, *_ = msgpack.unpackb(grave)
                recent = now_ms() - delivered_ms <= keys.TOMBSTONE_TTL * 1000
                if recent and hmac.compare_digest(digest, self._digest(token, path)):
                    return Tombstone(int(delivered_ms), Origin(asked))
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
                keys.tombstones(self.name),
                keys.tombstone_ids(self.name),
            ],
            [
                now_ms(),
                int(grace * 1000),
                msgpack.packb([now_ms(), self._digest(token, path), asked, hops]),
                keys.TOMBSTONE_TTL,
                hops,
                call_id,
                keys.MOST_TOMBSTONES,
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
