"""redis-py's connections and their pool, with a time limit for each command and a way out of failovers.

After a failover the old primary answers READONLY. Its connections are then closed, and made anew by name,
which leads to the new primary.
"""

from __future__ import annotations

import os
import queue
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any, ClassVar

import redis

from wsgi_timeout.store.packing import Buffer
from wsgi_timeout.store.redis_errors import ConnectionLost, ErrorReply, Parser, Refused, Silent, WrongPassword
from wsgi_timeout.store.time_limit import seconds_left
from wsgi_timeout.store.timed_socket import TimedSocket, timed

#: Seconds that a thread waits for a free connection. Not SOCKET_TIMEOUT: in a burst of thousands of requests
#: a long wait says nothing about the server.
TURN_TIMEOUT = 30.0
#: Seconds for which a process does not connect again after a server has refused its password.
REFUSED_SECONDS = 2.0
#: Bytes that a unix socket takes at once, where the system allows it: one large chunk.
_SEND_BUFFER = 512 * 1024
#: First words of the errors of a server that has become a replica.
_REPLICA = ("READONLY", "MASTERDOWN", "UNBLOCKED")


class Failovers:
    """Counts how often a server was found to be the primary no more, in this process."""

    seen = 0


class _Refusals:
    """The errors of servers that have just refused a password, so that not every command connects again."""

    seen: ClassVar[dict[object, tuple[float, WrongPassword]]] = {}


class _LeavesReplicas:
    """A mixin for redis-py's connections: our parser, time limits, and reconnecting after a failover.

    Once a server has answered one connection that it became a replica, all connections of the process
    reconnect: before their next command, or, while they listen, at their next check for messages.
    """

    _failovers = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "parser_class": Parser})
        self._patience: float = options["socket_timeout"]

    def _connect(self) -> Any:
        self._failovers = Failovers.seen
        since, refusal = _Refusals.seen.get(self._account(), (0.0, None))
        if refusal and time.monotonic() - since < REFUSED_SECONDS:
            raise refusal
        self._limit()
        sock = super()._connect()  # type: ignore[misc]
        if sock.family == socket.AF_UNIX:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        return timed(sock)

    def _account(self) -> object:
        """Return server, user and password: what a refusal is about."""
        names = ("host", "port", "path", "username", "password", "credential_provider")
        return tuple(getattr(self, name, None) for name in names)

    def send_packed_command(self, *args: Any, **options: Any) -> Any:
        self._leave()
        self._limit()
        return super().send_packed_command(*args, **options)  # type: ignore[misc]

    def send_pieces(self, pieces: Sequence[Buffer]) -> None:
        """Send packed commands in pieces, without copies or checks, by one system call if possible."""
        self._leave()
        self._limit()
        connection: Any = self
        sock = connection._sock  # noqa: SLF001 - its own
        if type(sock) in (socket.socket, TimedSocket) and not connection.health_check_interval:
            try:
                # `sock.send` would first ask the system whether there is room.
                sent = os.writev(sock.fileno(), pieces)
            except OSError as error:
                sent = self._nothing_sent(error)
            pieces = _after(pieces, sent)
        if pieces:
            super().send_packed_command(pieces)  # type: ignore[misc]

    def _nothing_sent(self, error: OSError) -> int:
        """Return 0: redis-py tries again, with errors of its own; raises `Silent` at a kernel's limit."""
        connection: Any = self
        at_limit = type(connection._sock) is TimedSocket  # noqa: SLF001 - its own
        if at_limit and isinstance(error, BlockingIOError):
            connection.disconnect()
            raise Silent("it takes nothing more") from error
        return 0

    def reply(self) -> Any:
        """Do as `read_response`, without what redis-py prepares for errors that do not come."""
        connection: Any = self
        try:
            found = connection._parser.read_response()  # noqa: SLF001 - its own
        except OSError as error:
            connection.disconnect()
            kind = Silent if isinstance(error, TimeoutError) else ConnectionLost
            raise kind(f"no reply: {error}") from error
        except BaseException as error:
            connection.disconnect()
            self._note(error)
            raise
        if isinstance(found, ErrorReply):
            self._note(found)
            try:
                raise found
            finally:
                del found  # it refers to this frame
        return found

    def _limit(self) -> None:
        """Set the socket's timeout to the caller's remaining time; it also limits the wait for the reply."""
        connection: Any = self
        seconds = seconds_left(self._patience)
        if seconds == connection.socket_timeout:
            return
        if seconds <= 0:
            connection.disconnect()
            raise Silent("no time is left to ask it")
        connection.socket_timeout = connection.socket_connect_timeout = seconds
        if connection._sock is not None:  # noqa: SLF001 - its own
            connection._sock.settimeout(seconds)  # noqa: SLF001 - its own

    def can_read(self, *args: Any, **options: Any) -> Any:
        if self._leave():
            # redis-py's PubSub then reconnects and subscribes again.
            raise ConnectionLost("this server became a replica")
        return super().can_read(*args, **options)  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except (Refused, WrongPassword) as error:
            self._note(error)
            raise

    def _note(self, error: BaseException) -> None:
        """Note what an error says of the server."""
        if isinstance(error, Refused) and str(error).startswith(_REPLICA):
            Failovers.seen += 1
            self._leave()
        elif isinstance(error, WrongPassword):
            _Refusals.seen[self._account()] = (time.monotonic(), error)

    def _leave(self) -> bool:
        connection: Any = self
        stale = connection._sock is not None and self._failovers != Failovers.seen  # noqa: SLF001 - its own
        if stale:
            connection.disconnect()
        return stale


def _after(pieces: Sequence[Buffer], count: int) -> list[Buffer]:
    """Return what is left of `pieces` without their first `count` bytes."""
    rest: list[Buffer] = []
    for piece in pieces:
        if count < len(piece):
            rest.append(memoryview(piece)[count:])
        count = max(0, count - len(piece))
    return rest


@cache
def connection_class(kind: type) -> type:
    """Return a subclass of one of redis-py's connection classes, with the mixin."""
    return type(kind.__name__, (_LeavesReplicas, kind), {})


class _Stack:
    """What redis-py and we need of a `queue.LifoQueue`, in a third of its time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.queue: list[Any] = []
        # Not imported by name: gevent may replace it after this was imported.
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()

    def qsize(self) -> int:
        """Return how many items there are."""
        return len(self.queue)

    def put_nowait(self, item: Any) -> None:
        """Add an item; raises `queue.Full`."""
        if len(self.queue) >= self._most:
            raise queue.Full
        self.queue.append(item)
        self._tokens.put(None)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - as there
        """Return the item that was added last; raises `queue.Empty`."""
        self._tokens.get(block, timeout)
        return self.queue.pop()


class WaitingPool(redis.BlockingConnectionPool):
    """A pool whose threads wait for a free connection as long as each one's time limit allows."""

    def __init__(self, **options: Any) -> None:
        super().__init__(queue_class=_Stack, **options)  # type: ignore[no-untyped-call]

    @property
    def timeout(self) -> float:
        """For how many seconds redis-py's own commands wait for a connection."""
        return max(0.0, seconds_left(TURN_TIMEOUT))

    @timeout.setter
    def timeout(self, _: float) -> None:
        """Ignore the value that redis-py sets."""
