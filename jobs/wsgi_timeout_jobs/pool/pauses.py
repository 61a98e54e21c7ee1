"""Tells workers to take no calls while their name is paused, or RQ is suspended."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout_jobs.pool.child import Child

log = logging.getLogger("wsgi_timeout.pool")


class Pauses:
    """Asks Redis at each step of a pool, and tells the pool's children."""

    def __init__(self) -> None:
        #: Queues that were paused at the last step.
        self._paused: set[str] = set()
        self._asked: list[str] = []

    def ask(self, pipe: Any, queues: Iterable[str]) -> None:
        """Add a command for each queue to a pipeline."""
        self._asked = list(queues)
        for queue in self._asked:
            pipe.exists(rq_state.SUSPENDED, *keys.pauses(queue))

    def none(self, children: Iterable[Child]) -> None:
        """Tell the children that nothing is paused."""
        self.tell([0] * len(self._asked), children)

    def tell(self, answers: Iterable[int], children: Iterable[Child]) -> None:
        """Take the answers, and tell the children; changes are logged."""
        paused = {queue for queue, answer in zip(self._asked, answers, strict=True) if answer}
        for queue in paused - self._paused:
            log.warning(
                "queue wt:%s is paused by `wsgi-timeout pause` or `rq suspend`: no calls are taken", queue
            )
        for queue in self._paused - paused:
            log.warning("queue wt:%s is resumed: calls are taken again", queue)
        self._paused = paused
        for child in children:
            # A starting child asks by itself.
            if child.keeper_name:
                child.board.suspended = child.keeper_name in paused
