"""What we add to redis-py's connections and pool: time limits, and no connection stays with a replica."""

from __future__ import annotations

import time
from functools import cache
from typing import Any, ClassVar

import redis

from wsgi_timeout.store.redis_errors import ConnectionLost, Parser, Refused, Silent, WrongPassword
from wsgi_timeout.store.time_limit import seconds_left

#: Seconds that a thread waits for its turn: in a burst of thousands that says nothing about the server.
TURN_TIMEOUT = 30.0
#: Seconds for which a process does not connect again to a server that refused its password.
REFUSED_SECONDS = 2.0
#: Answers of a server that is a replica now.
_REPLICA = ("READONLY", "MASTERDOWN", "UNBLOCKED")


class _Failovers:
    """How often this process was told that its server is a replica: the name leads to another one then."""

    seen = 0


class _Refusals:
    """Which servers refused which password a moment ago: they are not asked again by each command."""

    seen: ClassVar[dict[object, tuple[float, WrongPassword]]] = {}


class _LeavesReplicas:
    """What we add to redis-py's connections: our parser, time limits, and none stays with a replica.

    When one of them is told that its server is a replica, the others of this process connect anew too,
    before their next command, or when they listen.
    """

    _failovers = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "parser_class": Parser})
        self._patience: float = options["socket_timeout"]

    def _connect(self) -> Any:
        self._failovers = _Failovers.seen
        since, refusal = _Refusals.seen.get(self._account(), (0.0, None))
        if refusal and time.monotonic() - since < REFUSED_SECONDS:
            raise refusal
        self._limit()
        return super()._connect()  # type: ignore[misc]

    def _account(self) -> object:
        """Return what a password is right or wrong for."""
        names = ("host", "port", "path", "username", "password", "credential_provider")
        return tuple(getattr(self, name, None) for name in names)

    def send_packed_command(self, *args: Any, **options: Any) -> Any:
        self._leave()
        self._limit()
        return super().send_packed_command(*args, **options)  # type: ignore[misc]

    def _limit(self) -> None:
        """Give the server as long as the caller has; what is set on the socket holds for the reply too."""
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
            # Who listens on it connects again for that, and subscribes.
            raise ConnectionLost("this server became a replica")
        return super().can_read(*args, **options)  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except Refused as error:
            if str(error).startswith(_REPLICA):
                _Failovers.seen += 1
                self._leave()
            raise
        except WrongPassword as error:
            _Refusals.seen[self._account()] = (time.monotonic(), error)
            raise

    def _leave(self) -> bool:
        connection: Any = self
        stale = connection._sock is not None and self._failovers != _Failovers.seen  # noqa: SLF001 - its own
        if stale:
            connection.disconnect()
        return stale


@cache
def connection_class(kind: type) -> type:
    """Return one of redis-py's classes of connections with what we add."""
    return type(kind.__name__, (_LeavesReplicas, kind), {})


class Line(redis.BlockingConnectionPool):
    """Connections for which threads stand in line: as long as each has time."""

    @property
    def timeout(self) -> float:
        """How many seconds to stand in line, for redis-py's own commands."""
        return max(0.0, seconds_left(TURN_TIMEOUT))

    @timeout.setter
    def timeout(self, _: float) -> None:
        """Ignore what redis-py sets."""
