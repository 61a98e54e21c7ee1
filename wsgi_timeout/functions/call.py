"""What was spawned: a handle by which any process looks, waits for and reads one call."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any, Generic, TypeVar, overload

from wsgi_timeout.compat import add_note
from wsgi_timeout.errors import (
    CallCancelled,
    CallFailed,
    CallTimedOut,
    OutputExpiredError,
    RemoteError,
    ResultNotReady,
    WorkerLost,
    WsgiTimeoutError,
)
from wsgi_timeout.functions import payload
from wsgi_timeout.functions.client import Client, client
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys
from wsgi_timeout.store.calls import Outcome
from wsgi_timeout.store.connection import AWAY, REFUSING, unavailable_is_refusal
from wsgi_timeout.watching.listener import Waiter

R = TypeVar("R")
T = TypeVar("T")

#: Seconds between two tries while Redis is away.
_RETRY_SECONDS = 0.5
#: Seconds between two looks at a call, for a wake that was lost.
_RECHECK_SECONDS = 5.0
#: Seconds that async code waits in one thread.
_SLICE_SECONDS = 2.0

_FAILURES: dict[Outcome, type[CallFailed]] = {
    Outcome.LOST: WorkerLost,
    Outcome.TIMEOUT: CallTimedOut,
    Outcome.CANCELLED: CallCancelled,
}


class _Get(Generic[R]):
    """`FunctionCall.get`, with the same beside it for async code."""

    def __init__(self, get: Callable[[float | None], R]) -> None:
        self._get = get

    def __call__(self, timeout: float | None = None) -> R:
        return self._get(timeout)

    async def aio(self, timeout: float | None = None) -> R:
        """Await it without blocking the event loop: `await call.get.aio(timeout=10)`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        threads = client().threads
        while True:
            left = _SLICE_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
            get = partial(self._get, min(left, _SLICE_SECONDS))
            try:
                # In slices: when it is cancelled its thread soon ends too, which an exit waits for.
                return await asyncio.get_running_loop().run_in_executor(threads, get)
            except ResultNotReady:
                if deadline is not None and time.monotonic() >= deadline:
                    raise


@dataclass(frozen=True, slots=True)
class _Ended:
    """What a call left that has ended."""

    outcome: Outcome
    detail: str
    #: The packed result or exception, None if there is none (any more).
    body: bytes | None


class FunctionCall(Generic[R]):
    """The handle of one spawned call; its id is all that it needs to be found again."""

    def __init__(self, object_id: str) -> None:
        self.object_id = object_id
        #: Return the result, waiting up to `timeout` seconds: None waits for ever, 0 only looks.
        #:
        #: May be called again, from any process with the same `REDIS_URL` and secret, until the
        #: result expires. Raises `ResultNotReady` (a `TimeoutError`) while it runs; the function's own
        #: exception, with its remote traceback as a note; `RemoteError` where that is itself a
        #: `TimeoutError`, no `Exception` (as `SystemExit`), or cannot be read; `CallTimedOut`,
        #: `CallCancelled`, `WorkerLost`; `OutputExpiredError` for a call that is unknown or expired.
        self.get = _Get(self._get)

    @classmethod
    def from_id(cls, object_id: str) -> FunctionCall[Any]:
        """Return the handle of a call by its id, without looking for it."""
        return FunctionCall(object_id)

    def cancel(self) -> bool:
        """Cancel the call; returns False if it had ended. Raises `OutputExpiredError`."""
        with unavailable_is_refusal():
            if self._record(client()) is None:
                raise self._expired()
            ttl = Settings.load().function_result_ttl
            return client().calls("").end(self.object_id, Outcome.CANCELLED, "cancelled by its caller", ttl)

    def status(self) -> dict[str, Any]:
        """Return `state` (queued, running, delayed, ended), `outcome`, `attempts`, times, `progress`.

        Raises `OutputExpiredError`.
        """
        with unavailable_is_refusal():
            found = client().calls("").status(self.object_id)
        if "state" not in found:
            raise self._expired()
        return {
            "state": found["state"],
            "outcome": found.get("outcome"),
            "attempts": int(found.get("attempt", 0)),
            **{name: _moment(found.get(name)) for name in ("created", "started", "ended", "due")},
            "progress": json.loads(found["progress"]) if "progress" in found else None,
        }

    def _get(self, timeout: float | None = None) -> R:
        here = client()
        deadline = None if timeout is None else time.monotonic() + timeout
        ended = self._look(here, deadline)
        if ended is None and timeout != 0:
            with here.shield():
                waiter = here.listener.waiter(self.object_id)
            with waiter:
                ended = self._wait(here, waiter, deadline)
        if ended is None:
            raise ResultNotReady(f"call {self.object_id} has not ended yet")
        return self._result(ended)

    def _wait(self, here: Client, waiter: Waiter, deadline: float | None) -> _Ended | None:
        joined = False
        while True:
            waiter.reset()
            try:
                if not joined:
                    here.listener.check()
                    here.calls("").join(self.object_id, here.listener.inbox)
                    joined = True
            except (*AWAY, *REFUSING):
                # Away, which the next look finds too; or full, and nobody will wake us.
                pass
            ended = self._look(here, deadline)
            if ended is not None:
                return ended
            left = _RECHECK_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return None
            waiter.wait(min(left, _RECHECK_SECONDS))

    def _look(self, here: Client, deadline: float | None) -> _Ended | None:
        """Return what a call left that has ended, None of one that has not; raises `OutputExpiredError`."""
        try:
            here.listener.check()
            record = self._record(here)
            if record is None:
                raise self._expired()
            if record[0] != b"ended":
                return None
            return self._ended(here, record)
        except (*AWAY, *REFUSING):
            left = _RETRY_SECONDS if deadline is None else deadline - time.monotonic()
            time.sleep(max(0.0, min(left, _RETRY_SECONDS)))
            return None

    _FIELDS = ("state", "outcome", "detail", "attempt", "body", "chunks")

    def _record(self, here: Client) -> list[bytes | None] | None:
        values: list[bytes | None] = here.send("HMGET", keys.call(self.object_id), *self._FIELDS)
        return values if values[0] is not None else None

    def _ended(self, here: Client, record: list[bytes | None]) -> _Ended:
        _, outcome, detail, attempt, body, chunks = record
        if chunks is not None:
            key = keys.value(self.object_id, int(attempt or 0))
            with here.shield():
                body = payload.read_chunks(here.redis, key, int(chunks))
        return _Ended(Outcome((outcome or b"").decode()), (detail or b"").decode(errors="replace"), body)

    def _result(self, ended: _Ended) -> R:
        if ended.outcome not in {Outcome.DONE, Outcome.RAISED}:
            raise _FAILURES.get(ended.outcome, CallFailed)(f"call {self.object_id}: {ended.detail}")
        if ended.body is None:
            raise self._expired() if ended.outcome is Outcome.DONE else RemoteError(ended.detail)
        value = self._unpacked(ended.body, ended.detail)
        if ended.outcome is Outcome.DONE:
            result: R = value
            return result
        raise _raisable(value, ended.detail)

    def _unpacked(self, body: bytes, detail: str) -> Any:
        try:
            return payload.unpack(body, self.object_id, "result")
        except WsgiTimeoutError:
            raise
        except Exception as error:
            # It names what this process cannot import, or fails when it is made again.
            what = f"the result of call {self.object_id} cannot be read here: {error!r}"
            raise RemoteError(f"{what}\n{detail}".strip()) from error

    def _expired(self) -> OutputExpiredError:
        return OutputExpiredError(f"there is no call {self.object_id!r}, or its result has expired")

    def __repr__(self) -> str:
        return f"FunctionCall({self.object_id!r})"


@overload
def gather() -> list[Any]: ...
@overload
def gather(*calls: FunctionCall[T]) -> list[T]: ...
def gather(*calls: FunctionCall[Any]) -> list[Any]:
    """Return the results of several calls, in their order; the first exception in that order is raised."""
    return [call.get() for call in calls]


def _raisable(error: Any, traceback: str) -> BaseException:
    if not isinstance(error, BaseException):
        return RemoteError(traceback)
    # Neither "still running" nor an end of the process that asks.
    if isinstance(error, TimeoutError) or not isinstance(error, Exception):
        wrapped = RemoteError(f"the function raised {type(error).__name__}: {error}\n{traceback}")
        wrapped.__cause__ = error
        return wrapped
    add_note(error, f"In the worker:\n{traceback}")
    return error


def _moment(milliseconds: str | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(int(milliseconds) / 1000, timezone.utc)
