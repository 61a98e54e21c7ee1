"""Commands that count only when what they wrote is on disk: `durability="fsync"`.

WAITAOF (Redis 7.2, Valkey) waits until the append-only file holds, on disk, what its own connection has
written. Each waits for a sync of the server, over a second with `appendfsync everysec`; so commands are sent
by a few threads, each with a connection of its own, and all that wait when one is free share its WAITAOF.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import redis

from wsgi_timeout.store import everysec
from wsgi_timeout.store.connection import SOCKET_TIMEOUT, Commands, with_connections
from wsgi_timeout.store.record import text
from wsgi_timeout.store.redis_errors import ConnectionLost, NotOnDisk, Silent, not_on_disk
from wsgi_timeout.store.time_limit import seconds_left

_Words = tuple[str | bytes | float, ...]

#: Threads and connections of one process: so many syncs can be waited for at a time.
_LANES = 8
#: Commands that share one WAITAOF at most.
_BATCH = 500
#: Milliseconds that WAITAOF waits: less than its sender waits for the reply.
SYNC_MS = int(SOCKET_TIMEOUT * 1000) - 1000
#: What waits for a sync, and tells whether it did: see `everysec`.
ASK: Sequence[_Words] = (("WAITAOF", 1, 0, SYNC_MS), ("CONFIG", "GET", "appendfsync"))
#: Seconds in which looks are to find a sync.
_LOOKS_SECONDS = SYNC_MS / 1000
#: Seconds that a command may wait for a connection that is free, and then for its sync.
_PATIENCE_SECONDS = 2 * SOCKET_TIMEOUT


@dataclass(frozen=True, slots=True)
class _Command:
    words: _Words
    reply: Future[Any] = field(default_factory=Future)


class Synced:
    """Sends commands of one process; their replies come when what they wrote is on disk."""

    _of: ClassVar[WeakKeyDictionary[redis.Redis, Synced]] = WeakKeyDictionary()

    def __init__(self, client: redis.Redis) -> None:
        """Connect as `client` does, with connections of its own."""
        self._commands = Commands(with_connections(client, _LANES))
        self._changed = threading.Condition()
        self._waiting: list[_Command] = []
        self._threads: list[threading.Thread] = []
        self._idle = 0
        #: Whether the server had `appendfsync everysec` when it was asked last.
        self._everysec = False
        #: How long the last sync took, with its commands.
        self._seconds = 0.0

    @classmethod
    def of(cls, client: redis.Redis) -> Synced:
        """Return those of a client, which all that use it share."""
        # Without a lock, which would be made before gevent patches it. One too many costs nothing.
        return cls._of.get(client) or cls._of.setdefault(client, cls(client))

    def send(self, *words: str | bytes | float) -> Any:
        """Send one command that may run twice; return its reply when what it wrote is on disk.

        Raises what redis-py raises, and `NotOnDisk`.
        """
        command = _Command(words)
        with self._changed:
            self._waiting.append(command)
            self._start()
            self._changed.notify()
        try:
            return command.reply.result(max(0.0, seconds_left(_PATIENCE_SECONDS)))
        except concurrent.futures.TimeoutError:
            raise Silent("it is not known in time what is on disk") from None

    def _start(self) -> None:
        if self._idle:
            return
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) < _LANES:
            thread = threading.Thread(target=self._run, name="wsgi-timeout-synced", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._waiting)
                self._idle -= 1
                others = len(self._threads) - 1 > self._idle
            if others:
                # Or a burst would have all of them wait for the same sync, and what comes next for two.
                time.sleep(self._seconds / _LANES)
            with self._changed:
                batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            if batch:
                self._answer(batch)

    def _answer(self, batch: Sequence[_Command]) -> None:
        began = time.monotonic()
        try:
            replies, trouble = self._sent([command.words for command in batch])
        except Exception as error:  # noqa: BLE001 - the callers get it, and this thread goes on
            replies, trouble = [error] * len(batch), None
        else:
            self._seconds = time.monotonic() - began
        for command, reply in zip(batch, replies, strict=True):
            failure = reply if isinstance(reply, Exception) else trouble
            if failure:
                command.reply.set_exception(failure)
            else:
                command.reply.set_result(reply)

    def _sent(self, commands: list[_Words]) -> tuple[list[Any], Exception | None]:
        """Return the replies to commands, and what kept them from the disk."""
        number, looked = len(commands), self._everysec
        found = self._send([*commands, *ASK, *([everysec.INFO] if looked else ())])
        replies, (synced, policy), info = found[:number], found[number : number + len(ASK)], found[-1]
        if trouble := not_on_disk(synced):
            return replies, trouble
        self._everysec = policy_of(policy) == "everysec"
        if not self._everysec:
            return replies, None
        if not looked:
            return self._sent(commands)  # again, with a look at what they were sent to
        if isinstance(info, Exception):
            return replies, NotOnDisk(f"INFO: {info}")
        try:
            everysec.wait(info, lambda: self._commands.send(*everysec.INFO), _LOOKS_SECONDS)
        except NotOnDisk as error:
            return replies, error
        return replies, None

    def _send(self, commands: Sequence[_Words]) -> list[Any]:
        try:
            return self._commands.send_all(commands, refusals=True)
        except ConnectionLost:
            # It may have been closed while it was idle; all of these may run twice.
            return self._commands.send_all(commands, refusals=True)


def policy_of(reply: Any) -> str:
    """Return what a reply to the second command of `ASK` says; empty: this user may not ask for it."""
    # A map in RESP3, pairs in RESP2.
    values = list(reply.values()) if isinstance(reply, dict) else reply[1:] if isinstance(reply, list) else []
    return text(values[0]) if values else ""
