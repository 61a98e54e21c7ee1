"""The worker's half of the call record: taking calls, and recording how they ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import redis

from wsgi_timeout.errors import Fenced, WsgiTimeoutError
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.connection import Commands, Scripts
from wsgi_timeout.store.messages import WIRE_VERSION, ResponseHead
from wsgi_timeout.store.queue import Queue
from wsgi_timeout.store.record import Attempt, Outcome, Taken, now_ms, text
from wsgi_timeout.store.redis_errors import ConnectionLost

#: Seconds to pause after a call of another wire version, before the next call is taken.
_OTHER_SECONDS = 0.1


class MustLeave(WsgiTimeoutError):
    """One of a worker's running calls was ended from outside: the worker must take no others."""


class Attempts(Queue):
    """The calls of one name, for the workers that take and run them."""

    def __init__(self, client: redis.Redis, name: str, send: Callable[..., Any] | None = None) -> None:
        super().__init__(client, name, send)
        self._send_once = Commands(client, retries=0).send

    def pop(self, worker: str, seconds: float) -> str | None:
        """Block for a queued call, move it to the list of calls that the worker holds, and return its id.

        Returns None if none came within `seconds`. The command is not sent again if its reply was lost: the
        worker then looks at the list of calls that it holds.
        """
        moved = self._send_once("BLMOVE", self._queue, keys.held(worker), "LEFT", "RIGHT", seconds)
        return text(moved) if moved else None

    def take(self, call_id: str, worker: str, *, stock: bool = False, threads: int = 1) -> Taken | None:
        """Start an attempt of a held call, or of the queue's next one if the id is empty.

        `threads`: how many calls the worker may run at a time. Returns None if there is nothing to run. A
        call of another wire version stays in the queue, for a worker that can read it. Raises `MustLeave`.
        """
        answer = self.scripts.run(
            "take",
            [self._queue, self._started, keys.held(worker)],
            [
                call_id,
                worker,
                now_ms(),
                rq_state.timestamp(),
                "1" if stock else "",
                WIRE_VERSION,
                "1" if threads > 1 else "",
            ],
        )
        if answer == b"leaving":
            raise MustLeave(worker)
        if answer == b"other":
            # Without a pause this worker would move it round the queue in a busy loop.
            time.sleep(_OTHER_SECONDS)
            return None
        if not answer:
            return None
        taken, run, request, more, queued_ms, seal, durable = answer
        attempt = Attempt(text(taken), int(run), worker, max(0, queued_ms) / 1000, bool(durable))
        if attempt.durable and not self.is_on_disk(attempt.call_id, "running", attempt.number, worker):
            # As when the connection breaks: this worker then looks at what it holds.
            raise ConnectionLost("Redis came back without this attempt")
        return Taken(attempt, request, bool(more), seal)

    def hold(self, call_id: str, worker: str) -> None:
        """Record that a worker holds a call that RQ's own worker has popped for it."""
        pipe = self.redis.pipeline()
        pipe.lrem(keys.held(worker), 0, call_id)
        pipe.rpush(keys.held(worker), call_id)
        pipe.execute()

    def give_back(self, call_id: str, worker: str) -> bool:
        """Put a held call back to the front of the queue if it was not started; return whether it was put."""
        touched = [keys.held(worker), self._queue, keys.call(call_id)]
        return bool(self.scripts.run("put_back", touched, [call_id]))

    def drop_junk(self, worker: str) -> None:
        """Delete what is no list where this worker holds calls: it could take none until its end."""
        held = keys.held(worker)
        if self.redis.type(held) not in {b"list", b"none"}:
            self.redis.unlink(held)

    def store(self, attempt: Attempt, number: int, chunk: bytes) -> None:
        """Store a chunk of an attempt's large result; raises `Fenced` if it is no longer the current one."""
        touched = [keys.value(attempt.call_id, attempt.number), keys.call(attempt.call_id), self.buffered]
        if self.scripts.run("store", touched, [attempt.number, number, chunk]) == b"fenced":
            raise _fenced(attempt)

    def progress(self, attempt: Attempt, report: dict[str, Any]) -> None:
        """Record an attempt's progress; `report` must be serialisable as JSON."""
        self.scripts.run("progress", [keys.call(attempt.call_id)], [attempt.number, json.dumps(report)])

    def finish(
        self,
        attempt: Attempt,
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

        `response` is a small response with its body. A larger body was written to the attempt's stream, in
        `streamed` chunks; if Redis has lost some of them, the outcome becomes `BROKEN`. `value` is a
        function's small result; a large one was stored before in `chunks` chunks.
        """
        fields: list[Any] = []
        if response:
            fields = ["head", response[0].pack(), "body", response[1]]
        if value is not None:
            fields = ["body", value]
        if chunks:
            fields = ["chunks", chunks]
        answer = self._scripts_of(attempt).run(
            "finish",
            [
                *self._touched(attempt),
                keys.response_body(attempt.call_id, attempt.number),
            ],
            [
                attempt.call_id,
                attempt.worker,
                attempt.number,
                now_ms(),
                outcome,
                detail,
                int(result_ttl),
                streamed or "",
                *fields,
            ],
        )
        if answer == b"fenced":
            raise _fenced(attempt)

    def retry(self, attempt: Attempt, pause: float, detail: str) -> None:
        """End an attempt of a function, and schedule another one after `pause` seconds; raises `Fenced`."""
        answer = self._scripts_of(attempt).run(
            "retry",
            [*self._touched(attempt), keys.delayed(self.name)],
            [attempt.call_id, attempt.worker, attempt.number, int(pause * 1000), detail],
        )
        if answer == b"fenced":
            raise _fenced(attempt)

    def _scripts_of(self, attempt: Attempt) -> Scripts:
        return self.synced if attempt.durable else self.scripts

    def _touched(self, attempt: Attempt) -> list[str]:
        """Return the keys that change when an attempt ends."""
        call_id = attempt.call_id
        return [keys.call(call_id), rq_state.job_key(call_id), self._started, keys.held(attempt.worker)]


def _fenced(attempt: Attempt) -> Fenced:
    return Fenced(f"attempt {attempt.number} of {attempt.call_id} is no longer the current one")
