"""Receives RQ's own commands to workers (`rq.command`): shutdown, stop-job, kill-horse."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import redis

from wsgi_timeout.store import rq_state
from wsgi_timeout.store.record import text

log = logging.getLogger("wsgi_timeout.pool")


@dataclass(frozen=True, slots=True)
class Command:
    """One command; `call_id` is empty if it concerns the worker as a whole."""

    worker: str
    command: str
    call_id: str


class CommandChannel:
    """Listens on the channels of a pool's workers."""

    def __init__(self, client: redis.Redis) -> None:
        commands: Any = client  # without annotations in redis-py
        self._pubsub = commands.pubsub(ignore_subscribe_messages=True)
        self._workers: dict[str, str] = {}

    def received(self, workers: Iterable[str]) -> Iterator[Command]:
        """Yield the commands for these workers that came since the last call."""
        wanted = {rq_state.command_channel(worker): worker for worker in workers}
        if new := wanted.keys() - self._workers.keys():
            self._pubsub.subscribe(*new)
        if old := self._workers.keys() - wanted.keys():
            self._pubsub.unsubscribe(*old)
        self._workers = wanted
        while self._workers and (message := self._pubsub.get_message(timeout=0)):
            worker = wanted.get(text(message["channel"]))
            command = _parse(worker, message["data"]) if worker else None
            if command:
                yield command


def _parse(worker: str, data: bytes) -> Command | None:
    try:
        payload = json.loads(data)
        return Command(worker, str(payload["command"]), str(payload.get("job_id", "")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        log.warning("worker %s: not a command of RQ: %r", worker, data[:200])
        return None
