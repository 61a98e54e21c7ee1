"""A bounded, replayable byte stream in Redis: request bodies one way, response bodies the other.

A stream is one hash: chunks under their numbers, and

    count    chunks written                 first    number of the first chunk that is still there
    read     chunks acknowledged            kept     bytes in Redis now
    readers  inboxes woken by a chunk       writer   inbox woken by room
    end      `complete` or `broken`         uploader inbox of the request body's sender
    ended    of a response: when its attempt ended, in ms
    gone     bytes of the chunks before `first`
    left     when the last reader went away, in seconds of Redis' clock
    old, mark, marked   of a resumable stream: chunks before `old` are older than its window; once the
             window has passed since `marked`, `old` becomes `mark`
    window   of a resumable stream: seconds that it waits for a reader to come back
    seen     of a resumable stream: when a web process last said that it reads it, in Redis' seconds

A stream that fits the buffer is kept whole, for a second reader or a second run. Of a larger one, chunks are
deleted after they were read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from wsgi_timeout.errors import BytesFull, Fenced, ResultTrimmed, StreamLost
from wsgi_timeout.store import keys
from wsgi_timeout.store.connection import Replies, Scripts
from wsgi_timeout.store.lua_scripts import digest
from wsgi_timeout.store.packing import Buffer, pack_command, pack_large
from wsgi_timeout.store.record import number
from wsgi_timeout.store.redis_errors import UNAVAILABLE

T = TypeVar("T", bytes, memoryview)

#: The largest chunk in bytes: larger values would stall Redis for everybody else.
CHUNK = 256 * 1024
#: How many chunks one read returns at most.
READ_AHEAD = 4
#: Chunks of so many bytes are read by a command of their own: to pass through Lua would take longer.
_LARGE = 32 * 1024
_MULTI, _EXEC = pack_command(("MULTI",)), pack_command(("EXEC",))


@dataclass(frozen=True, slots=True)
class Limits:
    """How many bytes of one stream may be in Redis."""

    #: While there is a reader and the body is longer than `without`; also of chunks that were read already.
    with_reader: int
    #: While there is no reader, or the whole body is no longer than this.
    without: int
    #: Seconds for which read chunks are kept, up to `without` bytes, for a reader that reconnects.
    window: float = 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """The key that counts the bytes of all calls of a name, and its limit."""

    #: See `Queue.buffered`.
    key: str
    #: The limit in bytes; None: the one that came with the name's last new call.
    most: int | None = None


class StreamWriter:
    """Writes one stream; `attempt` and `head` are for a response, a request body has neither."""

    def __init__(
        self,
        scripts: Scripts,
        call_id: str,
        inbox: str,
        limits: Limits,
        *,
        ttl: float,
        attempt: int | None = None,
        head: bytes = b"",
        budget: Budget | None = None,
    ) -> None:
        self._scripts = scripts
        self._call_id = call_id
        self._inbox = inbox
        self._limits = limits
        self._ttl = max(1, int(ttl))
        self._attempt = attempt
        self._head = head
        self._budget = budget
        self._key = keys.request_body(call_id) if attempt is None else keys.response_body(call_id, attempt)
        self.count = 0
        #: Whether there was a reader when the last chunk was offered.
        self.has_reader = False
        #: Whether its reader has more to read than `with_reader` bytes.
        self.is_ahead = False
        #: Whether another chunk of the same size would have fitted.
        self._has_room = False
        self._begun: Replies | None = None

    def offer(self, chunk: Buffer) -> bool:
        """Append one chunk of at most `CHUNK` bytes; return False if there is no room for it now.

        Raises:
            Fenced: the attempt is no longer the current one.
            StreamLost: Redis has lost earlier chunks.
            BytesFull: `max_buffered_bytes` are used up, and the call was not accepted yet.
        """
        if self.begin(chunk) and self.finish():
            return True
        return self._note(self._scripts.run("write", self._touched(), self._words(bytes(chunk))))

    def begin(self, chunk: Buffer) -> bool:
        """Send a large chunk if it is known to have room; return whether `finish` is to be called for it.

        It passes no script then, which would copy it twice. Until `finish` the chunk must not change.
        """
        begin = self._scripts.begin
        if not self._has_room or begin is None or len(chunk) < _LARGE:
            return False
        self._has_room = False
        touched = self._touched()
        before, after = pack_large(("HSET", self._key, self.count), chunk)
        script = pack_command(
            ("EVALSHA", digest("write"), len(touched), *touched, *self._words(b"", len(chunk)))
        )
        pieces = [_MULTI + before, chunk, after + script + _EXEC]
        try:
            self._begun = begin(pieces, 4)
        except UNAVAILABLE:
            return False
        return True

    def finish(self) -> bool:
        """Return whether the chunk that was sent is in the stream; if not, `offer` says why.

        Raises what `offer` raises.
        """
        assert self._begun is not None
        begun, self._begun = self._begun, None
        try:
            *_, done = begun()
        except UNAVAILABLE:
            return False
        if not isinstance(done, list) or any(isinstance(reply, Exception) for reply in done):
            return False
        return self._note(done[1])

    def _touched(self) -> list[str]:
        return [self._key, keys.call(self._call_id), *([self._budget.key] if self._budget else [])]

    def _words(self, chunk: bytes, stored: int | str = "") -> list[Any]:
        budget = self._budget
        return [
            self._call_id,
            self.count,
            chunk,
            self._limits.with_reader,
            self._limits.without,
            self._ttl,
            self._inbox,
            "" if self._attempt is None else self._attempt,
            self._head if self.count == 0 else b"",
            self._limits.window,
            "" if budget is None or budget.most is None else budget.most,
            stored,
        ]

    def _note(self, answers: list[Any]) -> bool:
        """Take note of what the script answered; return whether the chunk is in the stream."""
        answer, reader, *more = answers
        if answer == b"fenced":
            raise Fenced(f"attempt {self._attempt} of {self._call_id} is no longer the current one")
        if answer == b"lost":
            raise StreamLost("Redis has lost the beginning of this body")
        if answer == b"over":
            raise BytesFull("requests and results use max_buffered_bytes already")
        self.has_reader = bool(reader)
        self.is_ahead = more[:1] == [1]
        self._has_room = more[1:] == [1]
        if answer == b"full":
            return False
        self.count += 1
        return True

    def close(self, end: str, ttl: float, synced: Scripts | None = None) -> None:
        """End a request body as `complete` or `broken`; a response ends with its call's outcome.

        With `synced` that is on disk then. Raises `StreamLost` if it should be complete, but Redis has lost
        chunks.
        """
        touched = [self._key, keys.call(self._call_id)]
        answer = (synced or self._scripts).run(
            "close", touched, [self._call_id, end, max(1, int(ttl)), self.count]
        )
        if answer == b"lost":
            raise StreamLost("Redis has lost the beginning of this body")


class StreamReader:
    """Reads a stream: the response of attempt `attempt`, or the request body, for attempt `reader`."""

    def __init__(
        self,
        scripts: Scripts,
        call_id: str,
        inbox: str,
        attempt: int | None = None,
        *,
        reader: int | None = None,
        number: int = 0,
        on_disk: Callable[[], bool] | None = None,
    ) -> None:
        """Begin at chunk `number`; `on_disk` waits until an end is on disk; False if that was lost."""
        self._on_disk = on_disk
        self._scripts = scripts
        self._call_id = call_id
        self._inbox = inbox
        self._response = attempt is not None
        self._reader = reader
        self._key = keys.request_body(call_id) if attempt is None else keys.response_body(call_id, attempt)
        self._number = number
        #: The last chunk was large; so may be the next ones.
        self._large = False
        #: `complete` or `broken` once the last chunk was returned; empty before.
        self.end = ""
        #: When the attempt ended that wrote it, in ms since 1970, known with its `end`; 0: not known.
        self.ended_ms = 0
        #: There is no such stream: it has not begun, was deleted, or belongs to another attempt.
        self.missing = False

    def poll(self) -> list[bytes]:
        """Return the next chunks that exist, and acknowledge those returned before.

        Raises `ResultTrimmed` if the next chunk was deleted after another reader had read it.
        """
        answer, end, ended, *chunks = self._scripts.run(
            "read",
            [self._key, keys.call(self._call_id)],
            [
                self._call_id,
                self._number,
                READ_AHEAD,
                self._inbox,
                "1" if self._response else "",
                self._reader or "",
                "1" if self._large else "",
            ],
        )
        if answer == b"ok" and self._large:
            chunks = self._large_chunks(chunks[0])
        if answer == b"trimmed" or None in chunks:
            raise ResultTrimmed("the beginning of this body was read by somebody else, and is gone")
        self.missing = answer == b"missing"
        if end and self._on_disk and not self._on_disk():
            end = b""
        self._number += len(chunks)
        self._large = bool(chunks) and len(chunks[-1]) >= _LARGE
        self.end = end.decode(errors="replace")
        self.ended_ms = number(ended)
        return list(chunks)

    def _large_chunks(self, count: int) -> list[bytes | None]:
        """Return the next `count` chunks; None in place of one that was deleted meanwhile."""
        if count <= 0:
            return []
        numbers = range(self._number, self._number + count)
        chunks: list[bytes | None] = self._scripts.command("HMGET", self._key, *numbers)
        return chunks

    def is_waited_for(self) -> bool:
        """Return whether the writer waits for room, and so for this reader."""
        return bool(self._scripts.command("HEXISTS", self._key, "writer"))

    def leave(self) -> None:
        """Stop reading: the limit without a reader applies again."""
        self._scripts.run("leave", [self._key], [self._call_id, self._inbox])


def seek(scripts: Scripts, call_id: str, attempt: int, offset: int) -> tuple[int, int] | None:
    """Return the number of the chunk with byte `offset` of a response, and the offset within that chunk.

    Returns None if that byte was deleted, or is not written yet.
    """
    found = scripts.run("seek", [keys.response_body(call_id, attempt)], [offset])
    return (int(found[0]), int(found[1])) if found else None


def split(data: T) -> list[T]:
    """Return `data` in pieces of at most `CHUNK` bytes."""
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
