"""Sends a response body into its stream, in a thread of its own while the app yields it.

PEP 3333: no block may be held back. What comes apart in time is sent before the app goes on, as a server
does it. What comes faster is sent by a thread, "to ensure that the block continues to be transmitted while
the application produces the next block": what the app yields meanwhile goes with the next command, so
that small blocks cost no round trip each.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable

from wsgi_timeout.errors import CallInterrupted
from wsgi_timeout.store.messages import CallRequest
from wsgi_timeout.store.record import Outcome
from wsgi_timeout.store.streams import CHUNK, StreamWriter, split
from wsgi_timeout.watching.listener import RECHECK_SECONDS, Listener
from wsgi_timeout_jobs.attempt.persist import until_redis_answers
from wsgi_timeout_jobs.process import forks
from wsgi_timeout_jobs.process.interrupts import Interrupts

#: Seconds between two blocks from which on each is sent before the app goes on.
_APART_SECONDS = 0.005
#: Bytes that an app may be ahead of what is being sent.
_AHEAD = 4 * CHUNK


class BodyWriter:
    """The body of one response; all methods but the thread's are for the handler's thread alone."""

    def __init__(
        self,
        stream: StreamWriter,
        call_id: str,
        listener: Listener,
        interrupts: Interrupts,
        request: CallRequest,
        *,
        reader_timeout: float,
        answers: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take the seconds after which a response that had a reader ends without one."""
        self._answers = answers
        self._stream = stream
        self._call_id = call_id
        self._listener = listener
        self._interrupts = interrupts
        self._request = request
        self._reader_timeout = reader_timeout
        #: When a reader was last seen; infinite until then.
        self._read_at = math.inf
        #: Until when a full stream or Redis is waited for: monotonic seconds.
        self.patience = math.inf
        self._changed = threading.Condition(threading.Lock())
        self._pending: list[bytes] = []
        self._size = 0
        #: The thread is sending what it took from `_pending`.
        self._busy = False
        self._abandoned = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._sent_at = -math.inf

    @property
    def count(self) -> int:
        """How many chunks are in the stream."""
        return self._stream.count

    def send(self, data: bytes) -> None:
        """Send a block, or have it sent while the app goes on.

        Raises `Fenced` if the attempt is no longer the current one, `CallInterrupted` if nobody read what
        was sent before, and what Redis answers: also for a block before this one.
        """
        forks.end_here()  # a forked process has no such thread, and maybe a lock that is never released
        if self._error:
            raise self._error
        idle = not self._pending and not self._busy
        apart = time.monotonic() - self._sent_at >= _APART_SECONDS
        if (idle and apart) or not self._start():
            self._write(data)
        else:
            self._hand_over(data)
        self._sent_at = time.monotonic()

    def drain(self) -> None:
        """Wait until all is in the stream; raises what `send` raises."""
        with self._changed:
            while (self._pending or self._busy) and not self._error:
                self._changed.wait()
        if self._error:
            raise self._error

    def abandon(self) -> None:
        """Send nothing more, and end the thread. Takes no lock: a handler may be interrupted anywhere."""
        self._abandoned = True
        self._pending = []
        if self._thread and self._changed.acquire(blocking=False):
            self._changed.notify_all()
            self._changed.release()

    def _start(self) -> bool:
        """Start the thread; False where there can be none."""
        if self._thread is None:
            if _threads_are_patched():
                return False
            thread = threading.Thread(target=self._run, name=f"{self._call_id}-body", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # too many threads, or too little memory
                return False
            self._thread = thread
        return True

    def _hand_over(self, data: bytes) -> None:
        with self._changed:
            while self._size >= _AHEAD and not self._error:
                self._changed.wait()
            self._pending.append(data)
            self._size += len(data)
            self._changed.notify()

    def _run(self) -> None:
        try:
            while data := self._take():
                self._write(data)
        except BaseException as error:  # noqa: BLE001 - raised where the app yields
            self._error = error
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _take(self) -> bytes:
        """Return all that the app has yielded, once there is something; empty at the end."""
        with self._changed:
            self._busy = False
            self._changed.notify()
            while not self._pending and not self._abandoned:
                # With a limit: the thread that abandons it may not get the lock.
                self._changed.wait(RECHECK_SECONDS)
            self._busy = True
            pending, self._pending, self._size = self._pending, [], 0
        return b"".join(pending)

    def _write(self, data: bytes) -> None:
        for chunk in split(data):
            if self._abandoned:
                return
            if not self._offer(chunk):
                self._wait_for_room(chunk)

    def _offer(self, chunk: bytes) -> bool:
        sent = until_redis_answers(
            lambda: self._stream.offer(chunk), self._interrupts.shield, lambda: self.patience, self._answers
        )
        if self._stream.has_reader:
            self._read_at = time.monotonic()
        elif time.monotonic() - self._read_at > self._reader_timeout:
            raise CallInterrupted(Outcome.UNREAD)
        return sent

    def _wait_for_room(self, chunk: bytes) -> None:
        with self._listener.waiter(self._call_id) as waiter:
            waiter.for_chunks()
            # Also a reader that reads nothing: its process may have died and left its name behind.
            deadline = time.monotonic() + self._request.unread_timeout
            while not self._offer(chunk):
                if time.monotonic() > deadline:
                    raise CallInterrupted(Outcome.UNREAD)
                if time.monotonic() > self.patience:
                    raise CallInterrupted(Outcome.TIMEOUT)
                if self._abandoned:
                    return
                waiter.wait(min(RECHECK_SECONDS, self._request.unread_timeout))
                waiter.reset()


def _threads_are_patched() -> bool:
    """Whether threads of this process are greenlets, which would send only when the app lets them."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool(
        (gevent and gevent.is_module_patched("threading"))
        or (eventlet and eventlet.is_monkey_patched("thread"))
    )
