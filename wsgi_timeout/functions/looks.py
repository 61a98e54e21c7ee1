"""Looks at many calls by one round trip: of async code thousands may ask at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import redis

from wsgi_timeout.store import keys
from wsgi_timeout.store.connection import Commands, digest, source
from wsgi_timeout.store.redis_errors import ConnectionLost, ScriptMissing

#: Looks of one round trip.
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class _Look:
    call_id: str
    #: The inbox that the call is to wake at its end; empty: none.
    inbox: str
    #: The state of the call, None if there is none.
    state: Future[bytes | None] = field(default_factory=Future)

    def command(self) -> tuple[str, ...]:
        key = keys.call(self.call_id)
        if self.inbox:
            return ("EVALSHA", digest("join"), "1", key, self.inbox, "state")
        return ("HMGET", key, "state")


class Looks:
    """Asks in one thread of its own, started with the first look; what came meanwhile is the next batch."""

    def __init__(self, client: redis.Redis) -> None:
        self._commands = Commands(client)
        self._changed = threading.Condition()
        self._wanted: list[_Look] = []
        self._thread: threading.Thread | None = None

    def look(self, call_id: str, inbox: str) -> Future[bytes | None]:
        """Return what will be the call's state; with an inbox the call wakes that from now on.

        Fails with what redis-py raises.
        """
        look = _Look(call_id, inbox)
        with self._changed:
            self._wanted.append(look)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="wsgi-timeout-looks", daemon=True)
                self._thread.start()
            self._changed.notify()
        return look.state

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted)
                batch, self._wanted = self._wanted[:_BATCH], self._wanted[_BATCH:]
            # A coroutine that was cancelled asks no more.
            batch = [look for look in batch if look.state.set_running_or_notify_cancel()]
            try:
                self._answer(batch)
            except Exception as error:  # noqa: BLE001 - the caller gets it, and this thread goes on
                for look in batch:
                    if not look.state.done():
                        look.state.set_exception(error)

    def _answer(self, batch: Sequence[_Look]) -> None:
        answers = self._sent(batch)
        if any(isinstance(answer, ScriptMissing) for answer in answers):
            self._commands.send("SCRIPT", "LOAD", source("join"))
            answers = self._sent(batch)
        for look, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                look.state.set_exception(answer)
            else:
                look.state.set_result(answer[0])

    def _sent(self, batch: Sequence[_Look]) -> list[Any]:
        commands = [look.command() for look in batch]
        try:
            return self._commands.send_all(commands)
        except ConnectionLost:
            # It may have been closed while it was idle; a look may run twice.
            return self._commands.send_all(commands)
