"""Asks for the states of many calls in one round trip, for async code, where thousands may wait at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import redis

from wsgi_timeout.store import keys
from wsgi_timeout.store.connection import Commands
from wsgi_timeout.store.lua_scripts import digest, source
from wsgi_timeout.store.redis_errors import ConnectionLost, ScriptMissing

#: How many calls one round trip asks for.
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class _Look:
    call_id: str
    #: The inbox that the call shall wake when it ends; empty: none.
    inbox: str
    #: The state of the call; None if there is no such call.
    state: Future[bytes | None] = field(default_factory=Future)

    def command(self) -> tuple[str, ...]:
        key = keys.call(self.call_id)
        if self.inbox:
            return ("EVALSHA", digest("join"), "1", key, self.inbox, "state")
        return ("HMGET", key, "state")


class Looks:
    """Asks in a thread of its own; looks that come during a round trip are batched into the next one."""

    def __init__(self, client: redis.Redis) -> None:
        self._commands = Commands(client)
        self._changed = threading.Condition()
        self._wanted: list[_Look] = []
        self._thread: threading.Thread | None = None

    def ask(self, call_id: str, inbox: str) -> Future[bytes | None]:
        """Return a future of the call's state; if an inbox is given, the call wakes it from now on.

        The future fails with what redis-py raises.
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
            # Leaves out looks whose coroutine was cancelled.
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
            # The connection may have been closed while idle; a look may run twice.
            return self._commands.send_all(commands)
