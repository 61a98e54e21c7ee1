"""Functions that run as calls, and the handles of what was spawned."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, ParamSpec, TypeVar, overload

from wsgi_timeout import keys, payload
from wsgi_timeout.calls import Calls, NewCall, Outcome, new_id
from wsgi_timeout.client import Client, client
from wsgi_timeout.connection import AWAY, REFUSING, unavailable_is_refusal
from wsgi_timeout.current import current_queue, current_slots
from wsgi_timeout.errors import (
    CallCancelled,
    CallFailed,
    CallTimedOut,
    NoWorker,
    OutputExpiredError,
    RemoteError,
    ResultNotReady,
    WorkerLost,
    WsgiTimeoutError,
)
from wsgi_timeout.messages import FunctionRequest
from wsgi_timeout.settings import Settings
from wsgi_timeout.waiting import Waiter

__all__ = ["Function", "FunctionCall", "gather"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

#: Seconds that large arguments live without a write, before their call is queued.
_CHUNK_TTL = 60
_RETRY_SECONDS = 0.5
#: Seconds between two looks at a call, for a wake that was lost.
_RECHECK_SECONDS = 5.0
#: Seconds between two looks for a first worker.
_NO_WORKER_SECONDS = 0.1

_FAILURES: dict[Outcome, type[CallFailed]] = {
    Outcome.LOST: WorkerLost,
    Outcome.TIMEOUT: CallTimedOut,
    Outcome.CANCELLED: CallCancelled,
}


class _Method(Generic[P, R]):
    """A bound method that has an `aio` beside it: the same, awaited without blocking the event loop."""

    def __init__(self, method: Callable[P, R]) -> None:
        self._method = method
        functools.update_wrapper(self, method)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._method(*args, **kwargs)

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Await it: `await call.get.aio(timeout=10)`."""
        return await asyncio.to_thread(self._method, *args, **kwargs)


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
        self.get = _Method(self._get)

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
            with here.listener.waiter(self.object_id) as waiter:
                ended = self._wait(here, waiter, deadline)
        if ended is None:
            raise ResultNotReady(f"call {self.object_id} has not ended within {timeout:g} s")
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
        except AWAY:
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


class Function(Generic[P, R]):
    """A function of a stub: run here, run elsewhere and waited for, or spawned."""

    def __init__(
        self,
        function: Callable[P, R],
        queue: Callable[[], str],
        *,
        timeout: float,
        retries: int,
    ) -> None:
        """`queue` returns the name of the queue, which may be known only later."""
        self._function = function
        self._queue = queue
        self._timeout = timeout
        self._retries = retries
        functools.update_wrapper(self, function)

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, as any other."""
        return self._function(*args, **kwargs)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here."""
        return self._function(*args, **kwargs)

    def spawn(self, /, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        """Have a worker run the function, and return at once: one round trip for small arguments.

        Raises `TypeError` for arguments that cannot be pickled, `PayloadTooLarge`, `CallRefused`.
        """
        return self._enqueue(args, kwargs, needs_worker=False)

    def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Have a worker run the function, wait for it, and return its result.

        Raises what `FunctionCall.get` raises, and `NoWorker` where nobody else could run it, or where
        no worker has come up within `worker_wait`.
        """
        queue = self._queue()
        if current_queue() == queue and current_slots() < 2:
            with unavailable_is_refusal():
                processes = client().calls(queue).slots()
            if processes < 2:
                raise NoWorker(
                    f"{self._function.__name__}.remote() would wait for ever: this is the only worker "
                    f"process of queue wt:{queue}; start more with `--function-processes`, or call .local()"
                )
        return self._enqueue(args, kwargs, needs_worker=True).get()

    def _enqueue(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, needs_worker: bool
    ) -> FunctionCall[R]:
        settings = Settings.load()
        call_id = new_id()
        name = self._function.__name__
        # Signed with their function: nobody can have another one take them.
        blob = payload.pack((name, args, kwargs), call_id, "arguments", settings.max_payload)
        here = client()
        inline = len(blob) <= settings.inline_body
        request = FunctionRequest(
            function=name,
            arguments=blob if inline else None,
            timeout=self._timeout,
            retries=self._retries,
            retry_backoff=settings.retry_backoff,
            inline_body=settings.inline_body,
            max_payload=settings.max_payload,
            result_ttl=settings.function_result_ttl,
        )
        call = NewCall(
            id=call_id,
            token="",
            path=name,
            method="CALL",
            request=request,
            max_attempts=1,
            max_queued=settings.max_spawned,
            queue_ttl=max(settings.queue_ttl, settings.function_result_ttl),
            beside="" if inline else keys.arguments(call_id),
            needs_worker=needs_worker,
        )
        with unavailable_is_refusal():
            if not inline:
                for number, chunk in payload.chunks_of(blob):
                    payload.write_chunk(here.redis, keys.arguments(call_id), number, chunk, _CHUNK_TTL)
            _enqueue(here.calls(self._queue()), call, settings.worker_wait)
        return FunctionCall(call_id)


@overload
def gather() -> list[Any]: ...
@overload
def gather(*calls: FunctionCall[T]) -> list[T]: ...
def gather(*calls: FunctionCall[Any]) -> list[Any]:
    """Return the results of several calls, in their order; the first exception in that order is raised."""
    return [call.get() for call in calls]


def _enqueue(calls: Calls, call: NewCall, worker_wait: float) -> None:
    """Enqueue a call; one that needs a worker waits so many seconds for a first one to come up."""
    deadline = time.monotonic() + worker_wait
    while True:
        try:
            return calls.enqueue(call)
        except NoWorker:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_NO_WORKER_SECONDS)


def _raisable(error: Any, traceback: str) -> BaseException:
    if not isinstance(error, BaseException):
        return RemoteError(traceback)
    # Neither "still running" nor an end of the process that asks.
    if isinstance(error, TimeoutError) or not isinstance(error, Exception):
        wrapped = RemoteError(f"the function raised {type(error).__name__}: {error}\n{traceback}")
        wrapped.__cause__ = error
        return wrapped
    error.add_note(f"In the worker:\n{traceback}")
    return error


def _moment(milliseconds: str | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
