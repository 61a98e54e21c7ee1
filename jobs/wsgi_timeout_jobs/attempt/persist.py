"""Records how an attempt ended, also when Redis is away, full, or never takes it."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from wsgi_timeout.errors import CallInterrupted, ConfigurationError, Fenced
from wsgi_timeout.retrying import retry
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.record import Outcome, Taken
from wsgi_timeout.store.redis_errors import UNAVAILABLE, Refused
from wsgi_timeout_jobs.process import forks
from wsgi_timeout_jobs.process.board import Board

log = logging.getLogger("wsgi_timeout.worker")

#: Seconds between two tries while Redis is away.
_RETRY_SECONDS = 0.5

#: Seconds for which a command may fail by a broken connection while Redis answers other commands.
_BREAKS_SECONDS = 8.0

T = TypeVar("T")
R = TypeVar("R")


def until_redis_answers(
    action: Callable[[], T],
    shield: Callable[[], AbstractContextManager[None]],
    deadline: Callable[[], float] = lambda: math.inf,
    answers: Callable[[], bool] = lambda: False,
) -> T:
    """Repeat an idempotent command until Redis takes it; return what it returned.

    Args:
        action: sends the command.
        shield: holds interrupts back while a command is sent.
        deadline: returns the monotonic time until which a Redis that refuses (it is full) is asked again; a
            function, since the deadline may change during the wait.
        answers: returns whether Redis answers other commands.

    Raises:
        CallInterrupted: the deadline is over.
        RedisError: only this command breaks its connection, as too large ones do; Redis will never take it.
    """
    forks.end_here()

    def shielded() -> T:
        with shield():
            return action()

    # Nearly always that is all.
    with suppress(*UNAVAILABLE):
        return shielded()
    patience = _Patience(shield, deadline, answers)
    return retry(shielded, UNAVAILABLE, pause=_RETRY_SECONDS, failed=patience.failed)


@dataclass(slots=True)
class _Patience:
    """Decides when to give up a command that Redis does not take."""

    shield: Callable[[], AbstractContextManager[None]]
    deadline: Callable[[], float]
    answers: Callable[[], bool]
    #: Since when the command fails while Redis answers others: monotonic seconds; None: it does not.
    breaks_since: float | None = None

    def failed(self, error: Exception) -> None:
        """Raise the error that ends the tries, if they are to end."""
        now = time.monotonic()
        if isinstance(error, Refused):
            if now > self.deadline():
                raise CallInterrupted(Outcome.TIMEOUT) from error
            return
        with self.shield():
            alive = self.answers()
        self.breaks_since = (self.breaks_since or now) if alive else None
        if self.breaks_since and now - self.breaks_since > _BREAKS_SECONDS:
            raise error


@contextmanager
def ends_process_on_error(board: Board) -> Iterator[None]:
    """End this process if the block raises, which means that an outcome could not be recorded.

    Its calls are then recovered. An exception in a call's thread would only end the thread, and the call
    would seem to run for ever.
    """
    try:
        yield
    except BaseException:
        if board.slots > 1:
            os.kill(os.getpid(), signal.SIGTERM)
        raise


def read_request(attempts: Attempts, taken: Taken, read: Callable[[Taken], R]) -> R | None:
    """Return a call's request, unpacked by `read`; if that fails, end the call as lost and return None.

    `read` raises `ConfigurationError` for a request of another version, or for a forged one; running it
    again would not help.
    """
    try:
        return read(taken)
    except ConfigurationError as error:
        log.error("%s: %s", taken.attempt.call_id, error)
        ttl = Settings().result_ttl
        finish = partial(attempts.finish, taken.attempt, Outcome.LOST, ttl, detail=str(error))
        with suppress(Fenced):
            until_redis_answers(finish, nullcontext)
        return None
