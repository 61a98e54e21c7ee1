"""What `serve` has started: it watches, replaces, reloads and stops these processes in order."""

from __future__ import annotations

import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable

from wsgi_timeout.serving.embedded_redis import EmbeddedServer
from wsgi_timeout.serving.parts import (
    Part,
    ServeOptions,
    begin_serving,
    reap_adopted,
    start_gunicorn,
    start_pool,
)
from wsgi_timeout.serving.signals import Signals

#: Seconds of importing the app after which a line says what is waited for.
_PATIENCE_SECONDS = 10.0
#: How often a pool that ends by itself is replaced, within how many seconds.
_MOST_REPLACED = 3
_REPLACED_SECONDS = 60.0


class Site:
    """gunicorn and a pool of workers, with an embedded server or another Redis."""

    def __init__(
        self,
        options: ServeOptions,
        environment: dict[str, str],
        sock: socket.socket,
        server: EmbeddedServer | None,
        signals: Signals,
        say: Callable[[str], None],
    ) -> None:
        self._options = options
        self._environment = environment
        self._sock = sock
        self._server = server
        self._signals = signals
        self._say = say
        #: The name that the workers serve.
        self.name = ""
        self._pool: Part | None = None
        self._web: Part | None = None
        #: A new pool that still loads the app, and is to replace the current one.
        self._next_pool: Part | None = None
        #: Old pools, which finish their running calls and end.
        self._leaving: list[Part] = []
        self._replaced: deque[float] = deque(maxlen=_MOST_REPLACED)

    def start(self) -> bool:
        """Start both; gunicorn serves once a worker has loaded the app. Return False if that fails."""
        self._pool = start_pool(self._options, self._environment)
        self._web = start_gunicorn(self._options, self._environment, self._sock)
        pipes = [self._pool.ready_pipe, self._signals.pipe]
        readable, _, _ = select.select(pipes, [], [], _PATIENCE_SECONDS)
        if not readable:
            self._say("no worker has imported the app yet: nothing is served before that")
            readable, _, _ = select.select(pipes, [], [])
        # A pool that ends closes its end of the pipe: readable, and empty.
        self.name = self._pool.read_name() if self._pool.ready_pipe in readable else ""
        begins = bool(self.name) and not self._signals.stop
        if begins:
            begin_serving(self._web, self._options, self.name)
        return begins

    def watch(self) -> int:
        """Serve until a stop is asked for, or a part dies that cannot be replaced; returns the exit code."""
        signals = self._signals
        while not signals.stop:
            pipes = [signals.pipe, *([self._next_pool.ready_pipe] if self._next_pool else [])]
            readable, _, _ = select.select(pipes, [], [], 0.25)
            signals.clear()
            if self._next_pool and self._next_pool.ready_pipe in readable:
                self._change_pools(self._next_pool)
            if signals.reopen:
                signals.reopen = False
                self._tell_web(signal.SIGUSR1)
            if signals.reload:
                signals.reload = False
                self._reload()
            if ended := self._ended():
                self._say(f"{' and '.join(ended)} ended unexpectedly: stopping all")
                return 1
            reap_adopted(self._own())
        parts = "web server, workers" + (", embedded server" if self._server else "")
        self._say(f"stopping: {parts}; handlers that run may finish first (again to hurry)")
        return 0

    def stop(self) -> None:
        """Stop the web half first, so that nothing new is accepted."""
        for part in (self._web, self._next_pool, self._pool, *self._leaving):
            if part:
                part.stop(self._signals)

    def _tell_web(self, number: signal.Signals) -> None:
        if self._web:
            self._web.send(number)

    def _reload(self) -> None:
        """Start a pool that loads the app again; it replaces the current one once it has."""
        if self._next_pool is None:
            self._say("loading the app anew")
            self._next_pool = start_pool(self._options, self._environment)

    def _change_pools(self, pool: Part) -> None:
        self._next_pool = None
        if not pool.read_name():
            self._say("the app cannot be loaded: going on with what runs")
            self._leaving.append(pool)
            return
        if self._pool:
            self._pool.send(signal.SIGTERM)
            self._leaving.append(self._pool)
        self._pool = pool
        self._tell_web(signal.SIGHUP)

    def _own(self) -> set[int]:
        """Return the ids of all processes that this one has started."""
        parts = [part for part in (self._web, self._pool, self._next_pool, *self._leaving) if part]
        processes = [*(part.process for part in parts), *([self._server.process] if self._server else [])]
        return {process.pid for process in processes if process}

    def _ended(self) -> list[str]:
        """Return the parts that have ended and cannot be replaced; a pool is replaced here."""
        self._leaving = [part for part in self._leaving if not part.ended]
        lost = [part.what for part in (self._web,) if part and part.ended]
        if self._server and self._server.process and self._server.process.poll() is not None:
            lost.append("the embedded server")
            # Without Redis no worker can store a result.
            self._signals.hurry = True
        if self._pool and self._pool.ended:
            self._pool = None
            if not lost and not self._too_often():
                self._say("the worker pool ended unexpectedly: starting it anew")
                self._next_pool = self._next_pool or start_pool(self._options, self._environment)
        if self._pool is None and self._next_pool is None:
            lost.append("the worker pool")
        return [] if self._signals.stop else lost

    def _too_often(self) -> bool:
        now = time.monotonic()
        often = len(self._replaced) == _MOST_REPLACED and now < self._replaced[0] + _REPLACED_SECONDS
        self._replaced.append(now)
        return often
