"""Recording what came of an attempt, though Redis is away, full, or refuses it for good."""

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

#: Seconds for which a command may break its connection while Redis answers others.
_BREAKS_SECONDS = 8.0

T = TypeVar("T")
R = TypeVar("R")


def until_redis_answers(
    action: Callable[[], T],
    shield: Callable[[], AbstractContextManager[None]],
    deadline: Callable[[], float] = lambda: math.inf,
    answers: Callable[[], bool] = lambda: False,
) -> T:
    """Repeat an idempotent command until Redis has taken it; one without room is asked until `deadline`.

    `deadline` returns monotonic seconds: it may become known while this waits. Raises what redis-py
    raises for a command that goes on to break its connection, as large ones may, while Redis `answers`
    others: it will never be taken.
    """
    forks.end_here()

    def shielded() -> T:
        with shield():
            return action()

    patience = _Patience(shield, deadline, answers)
    return retry(shielded, UNAVAILABLE, pause=_RETRY_SECONDS, failed=patience.failed)


@dataclass(slots=True)
class _Patience:
    """Decides when a command is given up that Redis does not take."""

    shield: Callable[[], AbstractContextManager[None]]
    deadline: Callable[[], float]
    answers: Callable[[], bool]
    #: Since when the command breaks its connection while Redis answers others: monotonic seconds.
    breaks_since: float | None = None

    def failed(self, error: Exception) -> None:
        """Raise what ends the tries, if they are to end."""
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
    """Have this process end when an outcome cannot be recorded: its calls are recovered then.

    What is raised in a thread of its own would end that alone, and leave the call running for ever.
    """
    try:
        yield
    except BaseException:
        if board.slots > 1:
            os.kill(os.getpid(), signal.SIGTERM)
        raise


def read_request(attempts: Attempts, taken: Taken, read: Callable[[Taken], R]) -> R | None:
    """Return the request of a call, which `read` unpacks; end the call, and return None, if it cannot.

    `read` raises `ConfigurationError` for a request of another version, or that was forged: no run can
    help it.
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
