"""One attempt of a function call: the arguments are checked and read, the result is recorded."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from wsgi_timeout import metrics
from wsgi_timeout.current import RunningCall, run_as
from wsgi_timeout.errors import (
    CallInterrupted,
    Fenced,
    OutputExpiredError,
    RemoteError,
    WsgiTimeoutError,
)
from wsgi_timeout.functions import payload
from wsgi_timeout.store import keys
from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.messages import FunctionRequest
from wsgi_timeout.store.record import Attempt, Outcome, Taken
from wsgi_timeout.store.redis_errors import ANY
from wsgi_timeout_jobs.attempt import run_once
from wsgi_timeout_jobs.attempt.account import is_told, tell_end
from wsgi_timeout_jobs.attempt.persist import (
    read_request,
    until_redis_answers,
)
from wsgi_timeout_jobs.attempt.report import Reports
from wsgi_timeout_jobs.process import forks
from wsgi_timeout_jobs.process.board import Board
from wsgi_timeout_jobs.process.interrupts import Interrupts

log = logging.getLogger("wsgi_timeout.worker")

_LONGEST_PAUSE_SECONDS = 60.0
#: How many characters of a traceback are kept, half from its beginning and half from its end.
_TRACEBACK = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Ending:
    """How an attempt ended."""

    outcome: Outcome
    detail: str = ""
    #: The packed result or exception.
    blob: bytes | None = None
    #: Seconds until the next attempt; None: there is none.
    pause: float | None = None


@dataclass(frozen=True, slots=True)
class FunctionRunner:
    """Runs attempts of function calls in a worker process, one at a time in each slot."""

    functions: Mapping[str, Callable[..., Any]]
    attempts: Attempts
    interrupts: Interrupts
    board: Board

    def run(self, slot: int, taken: Taken) -> None:
        """Run one attempt to its end. If this raises, the process must end, so that the call is recovered."""
        attempt = taken.attempt
        request = read_request(self.attempts, taken, lambda taken: FunctionRequest.unpack(taken.request))
        if request is None:
            return
        started = time.monotonic()
        deadline = started + request.timeout
        self.board.begin(slot, attempt, deadline)
        outcome: Outcome | None = None
        try:
            ending = self._attempt(attempt, request)
            forks.end_here()  # a process that the function forked must not touch the worker's shared memory
            run_once.end(attempt.call_id, again=ending.pause is not None)
            # While this waits for Redis, the pool must not end it.
            with self.board.settling(slot):
                outcome = self._settle(attempt, request, ending, deadline)
        finally:
            self.board.clear(slot, failed=outcome is not Outcome.DONE)
        if is_told():
            route = request.function if request.function in self.functions else metrics.UNKNOWN_ROUTE
            what, seconds = f"{request.function}()", time.monotonic() - started
            again = ending.pause is not None
            tell_end(self.attempts.name, attempt, what, route, outcome, seconds, goes_on=again)

    def _attempt(self, attempt: Attempt, request: FunctionRequest) -> _Ending:
        """Run the function; return how it ended, which is not recorded yet."""
        reports = Reports(self.attempts, self.interrupts, attempt)
        try:
            with self.interrupts.armed(), run_as(RunningCall(attempt.call_id, attempt.number, reports)):
                try:
                    return self._returned(attempt, request, self._call(attempt.call_id, request))
                except BaseException as error:
                    forks.end_here(error)
                    # Whatever a function raises, even SystemExit, ends its call and not this process.
                    if isinstance(error, CallInterrupted):
                        raise
                    return self._raised(attempt, request, error)
        except CallInterrupted as interruption:
            what = (attempt.call_id, request.function, interruption.reason)
            log.warning("%s: %s() is interrupted: %s", *what, exc_info=interruption)
            return _interrupted(request, Outcome(interruption.reason))
        finally:
            reports.close()

    def _call(self, call_id: str, request: FunctionRequest) -> Any:
        blob = request.arguments
        if blob is None:
            blob = self._large_arguments(call_id)
        name, args, kwargs, runs, until = payload.unpack(blob, call_id, "arguments")
        # An interrupt in between would leave the file locked.
        with self.interrupts.shield():
            run_once.begin(call_id, runs, until)
        function = self.functions.get(name)
        if function is None:
            raise WsgiTimeoutError(
                f"this worker's stub has no function {name!r}, only "
                f"{', '.join(self.functions) or 'none'}: deploy the same version everywhere"
            )
        result = function(*args, **kwargs)
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    def _large_arguments(self, call_id: str) -> bytes:
        def read() -> bytes | None:
            count = int(self.attempts.redis.hlen(keys.arguments(call_id)))
            return payload.read_chunks(self.attempts.redis, keys.arguments(call_id), count) if count else None

        blob = until_redis_answers(read, self.interrupts.shield)
        if blob is None:
            raise OutputExpiredError(f"the arguments of call {call_id} are not kept any more")
        return blob

    def _returned(self, attempt: Attempt, request: FunctionRequest, result: Any) -> _Ending:
        try:
            return _Ending(
                Outcome.DONE, blob=payload.pack(result, attempt.call_id, "result", request.max_payload)
            )
        except (TypeError, WsgiTimeoutError) as error:
            return self._raised(attempt, request, error, again=False)

    def _raised(
        self,
        attempt: Attempt,
        request: FunctionRequest,
        error: BaseException,
        *,
        again: bool = True,
    ) -> _Ending:
        detail = _shortened("".join(traceback.format_exception(error)))
        log.error("%s: %s() raised\n%s", attempt.call_id, request.function, detail)
        if again and attempt.number <= request.retries:
            pause = min(_LONGEST_PAUSE_SECONDS, request.retry_backoff * 2 ** (attempt.number - 1))
            return _Ending(Outcome.RAISED, detail, pause=pause)
        return _Ending(Outcome.RAISED, detail, self._packed(attempt.call_id, request, error))

    @staticmethod
    def _packed(call_id: str, request: FunctionRequest, error: BaseException) -> bytes:
        # The traceback is sent as text; an exception that cannot be pickled is sent as its text too.
        bare = error.with_traceback(None)
        bare.__cause__ = bare.__context__ = None
        try:
            blob = payload.pack(bare, call_id, "result", request.max_payload)
            payload.unpack(blob, call_id, "result")
        except Exception:  # noqa: BLE001 - user classes fail in any way when they are rebuilt
            # Unlike str(error) this never raises.
            text = _shortened("".join(traceback.format_exception_only(error)).strip())
            return payload.pack(RemoteError(text), call_id, "result", sys.maxsize)
        return blob

    def _settle(
        self, attempt: Attempt, request: FunctionRequest, ending: _Ending, deadline: float
    ) -> Outcome | None:
        """Record how an attempt ended, and return the outcome; None: something else had ended the call."""
        try:
            try:
                self._record(attempt, request, ending, deadline)
            except CallInterrupted as interruption:
                log.warning("%s: Redis had no room for its result in time", attempt.call_id)
                ending = _interrupted(request, Outcome(interruption.reason))
                self._record(attempt, request, ending, deadline)
            except ANY as error:
                log.exception("%s: its outcome could not be recorded", attempt.call_id)
                ending = _Ending(Outcome.LOST, f"its outcome could not be recorded: {error}")
                self._record(attempt, request, ending, deadline)
        except Fenced as error:
            log.warning("%s: given up, its outcome was recorded elsewhere (%s)", attempt.call_id, error)
            self._let_go(attempt, request)
            return None
        return ending.outcome

    def _let_go(self, attempt: Attempt, request: FunctionRequest) -> None:
        # This is refused as well, but removes the call from those that the worker holds.
        finish = partial(self.attempts.finish, attempt, Outcome.LOST, request.result_ttl)
        with suppress(Fenced):
            until_redis_answers(finish, self.interrupts.shield)

    def _record(self, attempt: Attempt, request: FunctionRequest, ending: _Ending, deadline: float) -> None:
        shield = self.interrupts.shield
        if (pause := ending.pause) is not None:
            retry = partial(self.attempts.retry, attempt, pause, ending.detail)
            until_redis_answers(retry, shield)
            return
        value, count = ending.blob, 0
        if value is not None and len(value) > request.inline_body:
            for number, chunk in payload.chunks_of(value):
                store = partial(self.attempts.store, attempt, number, chunk)
                until_redis_answers(store, shield, lambda: deadline)
                count = number + 1
            value = None
        finish = partial(
            self.attempts.finish,
            attempt,
            ending.outcome,
            request.result_ttl,
            detail=ending.detail,
            value=value,
            chunks=count,
        )
        until_redis_answers(finish, shield)


def _interrupted(request: FunctionRequest, outcome: Outcome) -> _Ending:
    timed_out = outcome is Outcome.TIMEOUT
    return _Ending(
        outcome, f"ran longer than its timeout, {request.timeout:g} s" if timed_out else "cancelled"
    )


def _shortened(text: str) -> str:
    left_out = len(text) - _TRACEBACK
    if left_out <= 0:
        return text
    half = _TRACEBACK // 2
    return f"{text[:half]}\n[... {left_out} characters left out ...]\n{text[-half:]}"
