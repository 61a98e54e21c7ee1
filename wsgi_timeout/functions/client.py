"""What a process needs to spawn function calls and wait for them: connections and a listener per Redis."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

import redis

from wsgi_timeout.current import shield
from wsgi_timeout.functions.looks import Looks
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import durability
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.connection import Commands, connect, connect_to_listen, redis_url
from wsgi_timeout.watching.listener import Listener

_CONNECTIONS = 4
#: How many results async code of one process reads at the same time.
_THREADS = 8

_lock = threading.Lock()
_clients: dict[tuple[int, str], Client] = {}


class Client:
    """The connections and the listener of one process, for function calls in one Redis."""

    def __init__(self, url: str) -> None:
        self.redis: redis.Redis = connect(url, connections=_CONNECTIONS)
        self._commands = Commands(self.redis)
        self.listener = Listener(partial(connect_to_listen, url))
        self.looks = Looks(self.redis)
        #: Threads in which async code reads results; asyncio's own few are left to the app.
        self.threads = ThreadPoolExecutor(_THREADS, "wsgi-timeout-get")
        self._calls: dict[str, Calls] = {}

    @cached_property
    def settings(self) -> Settings:
        """The settings, read at the first use; a later change of the environment is not seen.

        Raises `CannotSync` where Redis cannot keep the `durability` that is set.
        """
        settings = Settings.load()
        if settings.durable:
            with self.shield():
                durability.cost_on(self.redis)
        return settings

    def calls(self, name: str) -> Calls:
        """Return the calls of one queue."""
        if name not in self._calls:
            self._calls[name] = Calls(self.redis, name, self.send)
        return self._calls[name]

    def send(self, *words: str | bytes | float) -> Any:
        """Send one command that may run twice."""
        with self.shield():
            return self._commands.send(*words)

    @staticmethod
    def shield() -> AbstractContextManager[None]:
        """Hold interrupts back in a `with` block, in which they would leave a connection or a lock in use."""
        return shield()


def client() -> Client:
    """Return this process's client of `REDIS_URL`; a forked child gets its own."""
    url = redis_url()
    key = (os.getpid(), url)
    if found := _clients.get(key):
        return found
    with shield(), _lock:
        if key not in _clients:
            _clients[key] = Client(url)
        return _clients[key]
