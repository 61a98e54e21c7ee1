"""Recording what came of an attempt, though Redis is away, full, or refuses it for good."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import TypeVar

from wsgi_timeout.errors import CallInterrupted, ConfigurationError, Fenced
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.record import Attempt, Outcome
from wsgi_timeout.store.redis_errors import AWAY, Refused
from wsgi_timeout_jobs.process import forks
from wsgi_timeout_jobs.process.board import Board

log = logging.getLogger("wsgi_timeout.worker")

#: Seconds between two tries while Redis is away.
_RETRY_SECONDS = 0.5

#: Seconds for which a command may break its connection while Redis answers others.
_BREAKS_SECONDS = 8.0

T = TypeVar("T")


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
    breaks_since: float | None = None
    while True:
        try:
            with shield():
                return action()
        except AWAY:
            with shield():
                alive = answers()
            now = time.monotonic()
            breaks_since = (breaks_since or now) if alive else None
            if breaks_since and now - breaks_since > _BREAKS_SECONDS:
                raise
            time.sleep(_RETRY_SECONDS)
        except Refused as error:
            if time.monotonic() > deadline():
                raise CallInterrupted(Outcome.TIMEOUT) from error
            time.sleep(_RETRY_SECONDS)


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


def fail_unreadable(attempts: Attempts, attempt: Attempt, error: ConfigurationError) -> None:
    """End a call that somebody else has sent, or another version: no run of ours can help it."""
    log.error("%s: %s", attempt.call_id, error)
    ttl = Settings().result_ttl
    finish = partial(attempts.finish, attempt, Outcome.LOST, ttl, detail=str(error))
    with suppress(Fenced):
        until_redis_answers(finish, nullcontext)
