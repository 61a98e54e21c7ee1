"""`FunctionCall`: a handle by which any process waits for a spawned call, and reads its result."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Generic, TypeVar

from wsgi_timeout.errors import ResultNotReady, WsgiTimeoutError
from wsgi_timeout.functions import payload
from wsgi_timeout.functions.client import Client, client
from wsgi_timeout.functions.ended import EndedCall, expired
from wsgi_timeout.functions.with_aio import with_aio
from wsgi_timeout.store import keys
from wsgi_timeout.store.record import number, outcome_of
from wsgi_timeout.store.redis_errors import ANY, UNAVAILABLE, unavailable_is_refusal
from wsgi_timeout.store.time_limit import within
from wsgi_timeout.watching.waiter import Waiter

R = TypeVar("R")

#: Seconds between two tries while Redis is away.
_RETRY_SECONDS = 0.5
#: Seconds between two checks of a call, for wakes that were lost.
_RECHECK_SECONDS = 5.0
#: Seconds in which a call is cancelled whose caller is interrupted.
_CANCEL_SECONDS = 2.0
#: Seconds after a `spawn` in which `get` does not ask first whether the call has ended.
_FRESH_SECONDS = 0.005


class FunctionCall(Generic[R]):
    """The handle of one spawned call.

    It holds nothing but the id, so it can be pickled, or made anew from the id in any process that has
    the same `REDIS_URL` and `WSGI_TIMEOUT_SECRET`. The call itself lies in Redis: it goes on when the
    process that spawned it ends, and its result is kept for `function_result_ttl` seconds (7 days).
    """

    #: When this process spawned it, in monotonic seconds.
    _spawned = -math.inf

    def __init__(self, object_id: str) -> None:
        """Make the handle of a call; see `from_id`.

        Args:
            object_id: the `object_id` of a handle, as `spawn` returned it.
        """
        #: The id of the call, as text that may stand in URLs and logs: "fc-" and 22 characters.
        self.object_id = object_id

    @classmethod
    def from_id(cls, object_id: str) -> FunctionCall[Any]:
        """Return the handle of a call by its id.

        Redis is not asked: an id that nobody knows is noticed by `get`, `status` and `cancel`.

        Args:
            object_id: the `object_id` of a handle, as `spawn` returned it.
        """
        return FunctionCall(object_id)

    @with_aio
    def get(self, timeout: float | None = None) -> R:
        """Wait for the call to end, and return what the function returned.

        May be called again, from any process, until the result expires. `await call.get.aio(timeout)`
        does the same in async code. While Redis is away this waits on, up to `timeout`.

        Args:
            timeout: seconds; None waits until the call has ended, 0 only looks.

        Returns:
            What the function returned, unpickled.

        Raises:
            ResultNotReady: it has not ended within `timeout`; it is a `TimeoutError` too.
            Exception: what the function raised, with the worker's traceback as a note.
            RemoteError: what the function raised cannot be raised here. That is a class that this process
                cannot import, a `SystemExit` and the like, or a `TimeoutError` of its own, which
                would look like "still running".
            CallTimedOut: it ran longer than its `timeout`.
            CallCancelled: it was cancelled.
            WorkerLost: the worker died, and the function may not run again.
            OutputExpiredError: there is no such call, or its result has expired.
            PayloadRefused: the result was signed with another secret.
        """
        return self._get(timeout)

    def cancel(self) -> bool:
        """Cancel the call, whether it is queued or running.

        A running function is interrupted: its `finally` blocks run, its `except Exception` blocks do
        not. When it has not ended 10 s later (`interrupt_grace`), its process is killed.

        Returns:
            True if this cancelled it, False if it had ended before.

        Raises:
            OutputExpiredError: there is no such call, or its result has expired.
            RedisUnavailable: Redis does not answer.
        """
        with unavailable_is_refusal():
            if self._record(client()) is None:
                raise expired(self.object_id)
            ttl = client().settings.function_result_ttl
            return client().calls("").cancel(self.object_id, "cancelled by its caller", ttl)

    def status(self) -> dict[str, Any]:
        """Return what is known of the call now, without waiting.

        Returns:
            A dict. `state`: "queued", "running", "delayed" (waiting for a retry) or "ended".
                `outcome`: None until it has ended, then "done", "raised", "timeout", "cancelled" or
                "lost".
                `attempts`: how often it was started. `created`, `started`, `ended`, `due` (the next
                retry): a `datetime` in UTC, or None. `progress`: what the function said last by
                `progress()`, a dict with `done`, `total` and `message`, or None.

        Raises:
            OutputExpiredError: there is no such call, or its result has expired.
            RedisUnavailable: Redis does not answer.
        """
        with unavailable_is_refusal():
            found = client().calls("").status(self.object_id)
        if "state" not in found:
            raise expired(self.object_id)
        return {
            "state": found["state"],
            "outcome": found.get("outcome"),
            "attempts": int(found.get("attempt", 0)),
            **{name: _moment(found.get(name)) for name in ("created", "started", "ended", "due")},
            "progress": json.loads(found["progress"]) if "progress" in found else None,
        }

    def _get(self, timeout: float | None = None) -> R:
        result: R = self._end(client(), timeout).result()
        return result

    def _take(self, queue: str) -> R:
        """Return what `get` returns, and delete the call: nobody else has its id."""
        here = client()
        try:
            ended = self._end(here, None)
        except BaseException as error:
            if not isinstance(error, Exception):
                # Interrupted: nobody waits for it any more.
                with suppress(*ANY, WsgiTimeoutError), within(_CANCEL_SECONDS):
                    self.cancel()
            raise
        if ended.body and len(ended.body) > here.settings.inline_body:
            with suppress(*ANY):  # it has a TTL
                here.send("UNLINK", keys.value(self.object_id, ended.attempt))
        with here.shield():
            here.listener.forget_soon(queue, self.object_id, ended.attempt)
        result: R = ended.result()
        return result

    def _end(self, here: Client, timeout: float | None) -> EndedCall:
        deadline = None if timeout is None else time.monotonic() + timeout
        # One that was spawned just now has hardly ended: it is looked at as it is joined.
        is_fresh = timeout != 0 and time.monotonic() - self._spawned < _FRESH_SECONDS
        ended = None if is_fresh else self._look(here, deadline)
        if ended is None and timeout != 0:
            with here.shield():
                waiter = here.listener.waiter(self.object_id)
            with waiter:
                ended = self._wait(here, waiter, deadline)
        if ended is None:
            raise ResultNotReady(f"call {self.object_id} has not ended yet")
        return ended

    def _wait(self, here: Client, waiter: Waiter, deadline: float | None) -> EndedCall | None:
        joined = False
        while True:
            waiter.reset()
            record = None
            try:
                if not joined:
                    here.listener.check()
                    with within(_left(deadline)):
                        record = here.calls("").join_and_read(
                            self.object_id, here.listener.inbox, self._FIELDS
                        )
                    joined = True
            except UNAVAILABLE:
                # Redis is away, as the look below finds too; or it is full, and no wake will come.
                pass
            ended = self._look(here, deadline, record)
            if ended is not None:
                return ended
            left = _RECHECK_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return None
            # Without a wake it joins again, which tells Redis that somebody waits.
            joined = waiter.wait(min(left, _RECHECK_SECONDS)) and joined
            if waiter.carried and (carried := EndedCall.carried(self.object_id, waiter.carried)):
                return carried

    def _look(self, here: Client, deadline: float | None, record: Any = None) -> EndedCall | None:
        """Return how the call ended, by `record` if that was read just now; raises `OutputExpiredError`."""
        try:
            here.listener.check()
            if record is None:
                with within(_left(deadline)):
                    record = self._record(here)
            if record is None or record[0] is None:
                raise expired(self.object_id)
            if record[0] != b"ended" or not self._end_is_on_disk(here, record, deadline):
                return None
            return self._ended(here, record)
        except UNAVAILABLE:
            left = _RETRY_SECONDS if deadline is None else deadline - time.monotonic()
            time.sleep(max(0.0, min(left, _RETRY_SECONDS)))
            return None

    def _end_is_on_disk(self, here: Client, record: list[bytes | None], deadline: float | None) -> bool:
        """Wait until the end is on disk, where it is to be; False if the call goes on by now."""
        if record[-1] is None:
            return True
        with here.shield(), within(_left(deadline)):
            return here.calls("").is_on_disk(self.object_id, "ended", number(record[3]))

    _FIELDS = ("state", "outcome", "detail", "attempt", "body", "chunks", "durable")

    def _record(self, here: Client) -> list[bytes | None] | None:
        values: list[bytes | None] = here.send("HMGET", keys.call(self.object_id), *self._FIELDS)
        return values if values[0] is not None else None

    def _ended(self, here: Client, record: list[bytes | None]) -> EndedCall:
        _, outcome, detail, attempt, body, chunks, _ = record
        if chunks is not None:
            key = keys.value(self.object_id, int(attempt or 0))
            with here.shield():
                body = payload.read_chunks(here.redis, key, int(chunks))
        detail_text = (detail or b"").decode(errors="replace")
        return EndedCall(self.object_id, outcome_of(outcome or b""), detail_text, body, number(attempt))

    def __repr__(self) -> str:
        return f"FunctionCall({self.object_id!r})"


def _left(deadline: float | None) -> float:
    return math.inf if deadline is None else deadline - time.monotonic()


def _moment(milliseconds: str | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(int(milliseconds) / 1000, timezone.utc)
