"""One attempt of a web call: the app is run, its response recorded."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from wsgi_timeout.current import ENVIRON_KEY, PROGRESS_KEY, RunningCall, run_as
from wsgi_timeout.errors import CallInterrupted, Fenced
from wsgi_timeout.http.environ import request_id, restore
from wsgi_timeout.http.printable import printable, without_token
from wsgi_timeout.metrics import ROUTE_KEY
from wsgi_timeout.store import seals
from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.messages import CallRequest
from wsgi_timeout.store.record import Attempt, Outcome, Taken
from wsgi_timeout.store.streams import StreamReader
from wsgi_timeout.watching.listener import Listener
from wsgi_timeout_jobs.apps.offered import WSGIApp
from wsgi_timeout_jobs.attempt.account import is_told, tell_end
from wsgi_timeout_jobs.attempt.capture import Capture
from wsgi_timeout_jobs.attempt.persist import read_request
from wsgi_timeout_jobs.attempt.report import Reports
from wsgi_timeout_jobs.attempt.request_body import RequestBody, SmallBody, Uploader, buffered
from wsgi_timeout_jobs.attempt.response import Response
from wsgi_timeout_jobs.attempt.sessions import SessionSigns
from wsgi_timeout_jobs.process import forks
from wsgi_timeout_jobs.process.board import Board
from wsgi_timeout_jobs.process.interrupts import Interrupts

log = logging.getLogger("wsgi_timeout.worker")

_DETAILS = {
    Outcome.TIMEOUT: "the handler ran longer than its timeout, {timeout:g} s",
    Outcome.CANCELLED: "the call was cancelled",
    Outcome.UNREAD: "nobody read the response: it was full for {unread:g} s, or its stream was left",
}


@dataclass(frozen=True, slots=True)
class RequestRunner:
    """Runs attempts of web calls in a worker process, one at a time in each slot."""

    #: The target's WSGI apps by entry.
    apps: Mapping[str, WSGIApp]
    attempts: Attempts
    listener: Listener
    interrupts: Interrupts
    board: Board
    #: None: the pool has one process.
    sessions: SessionSigns | None = None

    def run(self, slot: int, taken: Taken) -> None:
        """Run one attempt to its end. If this raises, the process must end, so that the call is recovered."""
        attempt, call_id = taken.attempt, taken.attempt.call_id
        request = read_request(self.attempts, taken, self._unsealed)
        if request is None:
            return
        started = time.monotonic()
        deadline = started + request.timeout
        response = Response(
            self.attempts,
            self.listener,
            self.interrupts,
            attempt,
            request,
            deadline,
            partial(self.board.settling, slot),
            partial(self.board.recorded, slot),
        )
        self.board.begin(slot, attempt, deadline)
        try:
            with self.interrupts.armed():
                self._respond(attempt, request, response)
        except Fenced as error:
            log.warning("%s: given up, its outcome was recorded elsewhere (%s)", call_id, error)
            self._let_go(response)
        except CallInterrupted as interruption:
            self._interrupted(call_id, request, response, interruption)
        except BaseException as error:
            forks.end_here(error)
            log.exception("%s: its outcome could not be recorded", call_id)
            with suppress(Fenced):
                response.fail(Outcome.LOST, f"its outcome could not be recorded: {error}")
        finally:
            response.close()
            self.board.clear(slot, failed=response.failed)
        self._tell_end(attempt, request, response.outcome, time.monotonic() - started)
        if self.sessions and response.head:
            self.sessions.look(request.environ, response.head)

    def _unsealed(self, taken: Taken) -> CallRequest:
        seals.check(taken.seal, taken.request, taken.attempt.call_id, self.attempts.name)
        return CallRequest.unpack(taken.request)

    def _tell_end(
        self, attempt: Attempt, request: CallRequest, outcome: Outcome | None, seconds: float
    ) -> None:
        if not is_told():
            return
        environ = request.environ
        path = without_token(printable(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")))
        what = f"{environ['REQUEST_METHOD']} {path}"
        route = environ.get(ROUTE_KEY, "*")
        tell_end(self.attempts.name, attempt, what, route, outcome, seconds, request_id(environ))

    def _respond(self, attempt: Attempt, request: CallRequest, response: Response) -> None:
        capture = Capture(response)
        with ExitStack() as held:
            body = self._body(attempt, request, held)
            multithread = self.board.slots > 1
            environ = restore(request.environ, body, sys.stderr, multithread=multithread)
            reports = Reports(self.attempts, self.interrupts, attempt)
            call = environ[ENVIRON_KEY] = RunningCall(attempt.call_id, attempt.number, reports)
            environ[PROGRESS_KEY] = call.progress
            app = self.apps.get(request.entry)
            if app is None:  # another worker of this name has described it
                response.fail(Outcome.LOST, f"its worker serves no web function {request.entry!r}")
                return
            with run_as(call):
                try:
                    capture.run(app, environ)
                except BaseException as error:
                    forks.end_here(error)
                    # Whatever an app raises, even SystemExit, ends its call and not this process.
                    if isinstance(error, Fenced | CallInterrupted):
                        raise
                    self._raised(attempt.call_id, response, error)
                finally:
                    self._close(attempt.call_id, capture)
                    reports.close()

    def _body(self, attempt: Attempt, request: CallRequest, held: ExitStack) -> BinaryIO:
        if request.body is not None:
            return SmallBody(request.body)
        waiter = held.enter_context(self.listener.waiter(attempt.call_id))
        waiter.for_chunks()
        reader = StreamReader(
            self.attempts.scripts, attempt.call_id, self.listener.inbox, reader=attempt.number
        )
        uploader = Uploader(self.attempts, attempt.call_id)
        sealed = None
        if request.sealed_body:
            sealed = seals.SealedChunks(attempt.call_id, self.attempts.name)
        return buffered(RequestBody(reader, waiter, self.interrupts, uploader, sealed))

    @staticmethod
    def _close(call_id: str, capture: Capture) -> None:
        # An error here must not change a complete response, nor hide an interrupt.
        try:
            capture.close()
        except CallInterrupted:
            raise
        except BaseException as error:
            forks.end_here(error)
            log.exception("%s: close() of the response raised", call_id)

    @staticmethod
    def _raised(call_id: str, response: Response, error: BaseException) -> None:
        log.error("%s: the app raised", call_id, exc_info=error)
        response.fail(Outcome.RAISED, "".join(traceback.format_exception(error)))

    @staticmethod
    def _interrupted(
        call_id: str, request: CallRequest, response: Response, interruption: CallInterrupted
    ) -> None:
        outcome = Outcome(interruption.reason)
        detail = _DETAILS[outcome].format(timeout=request.timeout, unread=request.unread_timeout)
        # With the exception: where it stood, and so that error reporters know it if the app reported it too.
        if outcome is Outcome.TIMEOUT:
            log.error("%s: %s", call_id, detail, exc_info=interruption)
        else:
            log.warning("%s: %s", call_id, detail, exc_info=interruption)
        try:
            response.fail(outcome, detail)
        except Fenced:
            log.debug("%s: its outcome was recorded elsewhere", call_id)

    @staticmethod
    def _let_go(response: Response) -> None:
        # This is refused as well, but removes the call from those that the worker holds.
        with suppress(Fenced):
            response.fail(Outcome.LOST, "")
