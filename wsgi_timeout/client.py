"""What a process holds to spawn and follow function calls: one connection pool and listener per Redis."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import redis

from wsgi_timeout.calls import Calls
from wsgi_timeout.connection import Commands, connect, connect_to_listen, redis_url
from wsgi_timeout.waiting import Listener

_CONNECTIONS = 4
#: Calls that async code of one process waits for at the same time; others take turns.
_THREADS = 100

_lock = threading.Lock()
_clients: dict[tuple[int, str], Client] = {}


class Client:
    """One process's way to one Redis."""

    def __init__(self, url: str) -> None:
        self.redis: redis.Redis = connect(url, connections=_CONNECTIONS)
        #: Sends one command that may run twice.
        self.send: Callable[..., Any] = Commands(self.redis).send
        self.listener = Listener(partial(connect_to_listen, url))
        #: Where async code waits: not asyncio's own few threads, which others need.
        self.threads = ThreadPoolExecutor(_THREADS, "wsgi-timeout-get")
        self._calls: dict[str, Calls] = {}

    def calls(self, name: str) -> Calls:
        """Return the calls of one queue."""
        if name not in self._calls:
            self._calls[name] = Calls(self.redis, name)
        return self._calls[name]


def client() -> Client:
    """Return this process's client of `REDIS_URL`; a forked child gets its own."""
    url = redis_url()
    key = (os.getpid(), url)
    with _lock:
        if key not in _clients:
            _clients[key] = Client(url)
        return _clients[key]
