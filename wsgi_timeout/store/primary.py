"""The server that sentinels call the primary: where it is, and when another one takes its place.

A primary that the sentinels replace while it lives takes writes for some ten seconds more, until they
make it a replica; these writes are lost. A sentinel says at once that there is another, on a channel of
its own. A process looks there before it sends a command, and leaves the old one.
"""

from __future__ import annotations

import os
import threading
import time
from functools import cache
from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from wsgi_timeout.store.redis_connections import Failovers
from wsgi_timeout.store.redis_errors import ANY, ConnectionLost, ErrorReply
from wsgi_timeout.store.sentinels import Address, SentinelUrl

#: Seconds without an answer after which the next sentinel is asked.
_SENTINEL_SECONDS = 1.0
#: Seconds between two looks at what a sentinel has said; until another sentinel is listened to.
_LOOK_SECONDS, _PAUSE_SECONDS = 0.02, 5.0
#: Seconds for which what a sentinel has said counts more than what another answers: they tell each other.
_TOLD_SECONDS = 10.0


class Primary:
    """Asks and hears the sentinels of a URL, for all connections of a client."""

    def __init__(self, url: SentinelUrl, options: dict[str, Any], own: dict[str, Any]) -> None:
        """Use the TLS options of the servers' connections, and `own` for the sentinels'."""
        tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
        make: Any = Sentinel  # without annotations in redis-py
        self._sentinels = make(
            url.addresses,
            sentinel_kwargs={
                **own,
                **tls,
                **({"ssl": True} if url.server_url.startswith("rediss:") else {}),
                "socket_timeout": _SENTINEL_SECONDS,
                "socket_connect_timeout": _SENTINEL_SECONDS,
                # By default redis-py would ask a silent sentinel ten times.
                "retry": Retry(NoBackoff(), 0),
            },
        )
        self._service = url.service
        #: What a sentinel has said by itself, and until when it counts.
        self._told: tuple[Address, float] | None = None
        #: Where the last connection was made to.
        self._known: Address | None = None
        self._begin()

    def _begin(self) -> None:
        """Listen anew: in a forked child nothing that the parent listens with is of use."""
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._channel: Any = None
        self._next_look = 0.0

    def address(self) -> Address:
        """Return where it is; raises `ConnectionLost` if no sentinel knows."""
        told = self._told
        if told and time.monotonic() < told[1]:
            self._known = told[0]
        else:
            host, port = self._sentinels.discover_master(self._service)
            self._known = str(host), int(port)
        return self._known

    def doubt(self) -> None:
        """Ask the sentinels again: the server that was found is none, or no longer."""
        self._told = None

    def has_moved(self) -> bool:
        """Whether a sentinel has said, since this was last asked, that another server became it."""
        if self._pid != os.getpid():
            self._begin()
        if time.monotonic() < self._next_look or not self._turn.acquire(blocking=False):
            return False
        try:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            return self._listen() if self._channel is None else self._hear()
        except (*ANY, ValueError):
            self._channel = None
            self._sentinels.sentinels.append(self._sentinels.sentinels.pop(0))
            self._next_look = time.monotonic() + _PAUSE_SECONDS
            return False
        finally:
            self._turn.release()

    def _listen(self) -> bool:
        """Listen to a sentinel; whether it knows of a move that was not heard meanwhile."""
        sentinel = self._sentinels.sentinels[0]
        channel = sentinel.pubsub(ignore_subscribe_messages=True)
        channel.subscribe("+switch-master")
        found = sentinel.sentinel_get_master_addr_by_name(self._service)
        self._channel = channel
        return bool(found and self._known and self._note(found))

    def _hear(self) -> bool:
        moved = False
        while self._channel.connection.can_read(timeout=0):
            message = self._channel.get_message(timeout=0)
            # SERVICE OLD-HOST OLD-PORT NEW-HOST NEW-PORT
            words = message["data"].decode().split() if message else []
            if len(words) == 5 and words[0] == self._service:
                moved |= self._note(words[3:])
        return moved

    def _note(self, found: Any) -> bool:
        host, port = found
        address = (host.decode() if isinstance(host, bytes) else str(host)), int(port)
        if address == self._known:
            return False
        self._told = address, time.monotonic() + _TOLD_SECONDS
        return True


@cache
def following(kind: type) -> type:
    """Return a subclass of a connection class that connects to the primary, and follows it."""
    return type(kind.__name__, (_FollowsPrimary, kind), {})


def refuse_replicas(connection: Any) -> None:
    """Finish a connect, as redis-py's `redis_connect_func`; raises `ConnectionLost` for a replica."""
    connection.on_connect()
    connection.send_command("ROLE")
    try:
        role = connection.read_response()[0]
    except ErrorReply:  # a user without the right to ask
        return
    if role not in {b"master", "master"}:
        connection.primary.doubt()
        raise ConnectionLost(f"{connection.host}:{connection.port} is no primary any more, or not yet")


class _FollowsPrimary:
    """A mixin for our connections: asks where the primary is before each connect, and leaves an old one."""

    def __init__(self, *args: Any, primary: Primary, **options: Any) -> None:
        options["redis_connect_func"] = refuse_replicas
        super().__init__(*args, **options)
        self.primary = primary

    def _connect(self) -> Any:
        self.host, self.port = self.primary.address()
        return super()._connect()  # type: ignore[misc]

    def _leave(self) -> bool:
        if self.primary.has_moved():
            Failovers.seen += 1
        left: bool = super()._leave()  # type: ignore[misc]
        return left
