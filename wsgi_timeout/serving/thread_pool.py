"""The threads of our gunicorn worker: started when needed, each request handed over by one queue.

`concurrent.futures` takes about ten locks for a request.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any


class Done:
    """What `handle` returned or raised for one connection, with the methods of a `Future` that has ended."""

    __slots__ = ("_error", "_result")

    def __init__(self, result: Any, error: BaseException | None = None) -> None:
        self._result = result
        self._error = error

    def cancelled(self) -> bool:
        """Return False: nothing here is cancelled."""
        return False

    def exception(self) -> BaseException | None:
        """Return what was raised; None if nothing was."""
        return self._error

    def result(self) -> Any:
        """Return what was returned; raises what was raised."""
        if self._error is not None:
            raise self._error
        return self._result


class ThreadPool:
    """Runs `handle` for connections, at most `most` at a time."""

    def __init__(
        self,
        most: int,
        handle: Callable[[Any], Any],
        again: Callable[[Any, Done], bool],
        done: Callable[[Any, Done], object],
    ) -> None:
        """Set it up; all functions are called in the thread that handles a connection.

        Args:
            most: how many threads there may be.
            handle: handles one request of a connection.
            again: returns whether its next one is here already, so that this thread handles that too.
            done: is called with a connection and its outcome, when it is not.
        """
        self._most = most
        self._handle = handle
        self._again = again
        self._done = done
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = 0
        self._lock = threading.Lock()
        self._busy = 0

    @property
    def is_roomy(self) -> bool:
        """Whether at least half of the threads have nothing to do, or are not even started."""
        return 2 * self._busy <= self._most

    def submit(self, conn: Any) -> None:
        """Have a thread handle a connection: for the main thread."""
        with self._lock:
            self._busy += 1
        self._waiting.put(conn)
        if self._busy > self._threads < self._most:
            self._start()

    def shutdown(self, *, wait: bool = True) -> None:  # noqa: ARG002 - as gunicorn calls it
        """Let each thread end when it has nothing more to do; the interpreter waits for them."""
        for _ in range(self._threads):
            self._waiting.put(None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"wsgi-timeout-request_{self._threads}")
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
            return  # too many for this machine: use those that there are
        self._threads += 1

    def _run(self) -> None:
        while (conn := self._waiting.get()) is not None:
            done = self._handled(conn)
            while self._again(conn, done):
                done = self._handled(conn)
            # First: the next request of this connection may find this thread free.
            with self._lock:
                self._busy -= 1
            self._done(conn, done)
            del conn, done

    def _handled(self, conn: Any) -> Done:
        try:
            return Done(self._handle(conn))
        except BaseException as error:  # noqa: BLE001 - the main thread decides what follows
            return Done(None, error)
