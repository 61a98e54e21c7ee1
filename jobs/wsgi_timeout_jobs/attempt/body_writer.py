"""Writes a response body into its stream while the app yields it.

PEP 3333 forbids holding blocks back. A block that comes a while after the one before it is sent before the
app continues, as a server does. If blocks come quickly, a thread sends them, "to ensure that the block
continues to be transmitted while the application produces the next block"; blocks that the app yields
meanwhile are merged into the next command, so that small blocks do not cost one round trip each.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat

from wsgi_timeout.errors import CallInterrupted
from wsgi_timeout.store.messages import CallRequest
from wsgi_timeout.store.packing import Buffer
from wsgi_timeout.store.record import Outcome
from wsgi_timeout.store.streams import CHUNK, StreamWriter, split
from wsgi_timeout.watching.listener import RECHECK_SECONDS, Listener
from wsgi_timeout_jobs.attempt.persist import until_redis_answers
from wsgi_timeout_jobs.process import forks
from wsgi_timeout_jobs.process.interrupts import Interrupts

#: A block that comes at least so many seconds after the last one is sent before the app continues.
_APART_SECONDS = 0.005
#: So many blocks that wait for the thread are merged, if they are short: of no more bytes than `_SHORT`.
_MERGED = 64
_SHORT = 2048
#: How many bytes the app may yield ahead of the sending thread.
_AHEAD = 4 * CHUNK
#: Pause after each chunk while the reader has more than `buffer` bytes to read. A reader of 25 MB/s or more
#: then sets the pace, and Redis holds little; for a slower one 256 MiB take 10 s longer to write.
_AHEAD_OF_READER_SECONDS = 0.01


class BodyWriter:
    """Writes the body of one response. Its public methods are for the handler's thread only."""

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
        """Prepare to write; `reader_timeout`: seconds after which a response whose reader left is ended."""
        self._answers = answers
        self._stream = stream
        self._call_id = call_id
        self._listener = listener
        self._interrupts = interrupts
        self._request = request
        self._reader_timeout = reader_timeout
        #: When a reader was last seen; infinite until then.
        self._read_at = math.inf
        #: Until when to wait for room in the stream, or for Redis: monotonic seconds.
        self.patience = math.inf
        self._changed = threading.Condition(threading.Lock())
        #: What the thread is to send; the handler's thread appends, it takes from the left.
        self._pending: deque[bytes] = deque()
        #: Blocks that come before those in `_pending`, merged.
        self._merged: deque[bytes] = deque()
        #: Bytes that ever went into `_pending`, and that came out: each is written by one thread alone.
        self._given = self._taken = 0
        #: The thread is sending what it took from `_pending`, and looks there again before it rests.
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
        """Send a block, or hand it to the thread; errors of earlier blocks are raised here too.

        Raises:
            Fenced: the attempt is no longer the current one.
            CallInterrupted: nobody has read the response for too long, or its deadline is over.
        """
        busy = self._busy
        if busy and self._given - self._taken < _AHEAD and not self._error:
            # An app may yield its lines one by one: no lock for each.
            self._pending.append(data)
            self._given += len(data)
            if len(self._pending) >= _MERGED and len(data) <= _SHORT:
                self._merge()
            if not self._busy:  # it may have looked before that
                self._wake()
            return
        forks.end_here()  # a process that the handler forked lacks the thread, and may have its lock taken
        if self._error:
            raise self._error
        idle = not (self._pending or self._merged or self._busy)
        apart = time.monotonic() - self._sent_at >= _APART_SECONDS
        if (idle and apart) or not self._start():
            self._write(data)
        else:
            self._hand_over(data)
        self._sent_at = time.monotonic()

    def drain(self) -> None:
        """Wait until all blocks are in the stream; raises what `send` raises."""
        with self._changed:
            while (self._pending or self._merged or self._busy) and not self._error:
                self._changed.wait()
        if self._error:
            raise self._error

    def abandon(self) -> None:
        """Send nothing more, and end the thread. Never blocks on the lock: the handler may hold it."""
        self._abandoned = True
        self._pending.clear()
        self._merged.clear()
        if self._thread and self._changed.acquire(blocking=False):
            self._changed.notify_all()
            self._changed.release()

    def _start(self) -> bool:
        """Start the thread if needed; return False if there can be none."""
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
            while self._given - self._taken >= _AHEAD and not self._error:
                self._changed.wait()
            self._pending.append(data)
            self._given += len(data)
            self._changed.notify()

    def _merge(self) -> None:
        """Merge the blocks that wait: the memory of short ones is used again while the processor has it."""
        # An interrupt in between would leave a hole in the body.
        with self._interrupts.shield(), self._changed:
            pieces: list[bytes] = []
            with suppress(IndexError):  # whoever abandons it empties it
                pieces.extend(map(deque.popleft, repeat(self._pending, len(self._pending))))
            self._merged.append(b"".join(pieces))

    def _take_a_chunk(self) -> bytes:
        """Take the next blocks, as many as fit a chunk, or one that is larger.

        Not all that is there: while they are sent the app has time for as many more, and no longer.
        """
        pieces: list[bytes] = []
        room = CHUNK
        with suppress(IndexError):
            for blocks in (self._merged, self._pending):
                while blocks:
                    block = blocks.popleft()
                    if pieces and len(block) > room:
                        blocks.appendleft(block)
                        return b"".join(pieces)
                    pieces.append(block)
                    room -= len(block)
        return b"".join(pieces)

    def _wake(self) -> None:
        with self._changed:
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
        """Block until there are blocks, and return them merged; empty at the end."""
        with self._changed:
            self._busy = False
            self._changed.notify()
            while not (self._pending or self._merged or self._abandoned):
                # With a time limit: `abandon` may not get the lock, and then cannot notify.
                self._changed.wait(RECHECK_SECONDS)
            self._busy = True
            data = self._take_a_chunk()
            self._taken += len(data)
            self._changed.notify()
        return data

    def _write(self, data: bytes) -> None:
        for chunk in split(memoryview(data)) if len(data) > CHUNK else (data,):
            if self._abandoned:
                return
            if not self._offer(chunk):
                self._wait_for_room(chunk)
            if self._stream.is_ahead:
                time.sleep(_AHEAD_OF_READER_SECONDS)

    def _offer(self, chunk: Buffer) -> bool:
        sent = until_redis_answers(
            lambda: self._stream.offer(chunk), self._interrupts.shield, lambda: self.patience, self._answers
        )
        if self._stream.has_reader:
            self._read_at = time.monotonic()
        elif time.monotonic() - self._read_at > self._reader_timeout:
            raise CallInterrupted(Outcome.UNREAD)
        return sent

    def _wait_for_room(self, chunk: Buffer) -> None:
        with self._listener.waiter(self._call_id) as waiter:
            waiter.for_chunks()
            # Also if there is a reader: its process may have died without removing itself.
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
    """Return whether threads are greenlets here, which would not run while the app computes."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool(
        (gevent and gevent.is_module_patched("threading"))
        or (eventlet and eventlet.is_monkey_patched("thread"))
    )
