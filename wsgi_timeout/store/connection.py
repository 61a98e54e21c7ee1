"""Connections to Redis, with explicit timeouts and retries."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from inspect import unwrap
from queue import Empty
from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.store import sentinels
from wsgi_timeout.store.lua_scripts import digest, source
from wsgi_timeout.store.packing import Buffer, pack_command
from wsgi_timeout.store.primary import Primary, following
from wsgi_timeout.store.redis_connections import TURN_TIMEOUT, WaitingPool, connection_class
from wsgi_timeout.store.redis_errors import ANY, ConnectionLost, ErrorReply, Refused, ScriptMissing, Silent
from wsgi_timeout.store.redis_url import check_options, understood, without_password
from wsgi_timeout.store.time_limit import seconds_left

#: Seconds without a reply after which a server counts as away.
SOCKET_TIMEOUT = 5.0
_LISTEN_TIMEOUT = 1.0
#: How often a command is sent again after its connection was closed. redis-py 8 retries ten times or never,
#: depending on how the client was made. Our scripts may run twice, so two retries hide a reconnect; longer
#: outages are handled by callers.
_RETRIES = 2
_RETRY_PAUSE_SECONDS = 0.1

#: Returns the replies to commands that were sent, an error reply in its place; raises `AWAY` if they do not
#: come. To be called once, since the connection is kept until then.
Replies = Callable[[], list[Any]]


def redis_url() -> str:
    """Return `REDIS_URL`; raises `ConfigurationError` if it is not set."""
    url = os.environ.get("REDIS_URL", "")
    if not url:
        raise ConfigurationError(
            "REDIS_URL is not set: set it to your Redis or Valkey, as in "
            "REDIS_URL=redis://localhost:6379/0, or use `wsgi-timeout serve`, which brings its own"
        )
    return url


def connect(url: str, *, connections: int, socket_timeout: float = SOCKET_TIMEOUT) -> redis.Redis:
    """Return a client with at most `connections` connections; threads wait for a free one."""
    return _client(url, connections, socket_timeout, _RETRIES)


def connect_to_listen(url: str) -> redis.Redis:
    """Return a client of one connection, for blocking reads of a second; silence after that is an error."""
    return _client(url, 1, _LISTEN_TIMEOUT, 0)


def _client(url: str, connections: int, socket_timeout: float, retries: int) -> redis.Redis:
    written, url = url, understood(url)
    try:
        found = sentinels.parse(url)
        url = found.server_url if found else url
        parse: Any = redis.connection.parse_url  # without annotations in redis-py
        options = parse(url)
        kind = options.pop("connection_class", redis.Connection)
        own = sentinels.take_own_options(options) if found else {}
        check_options(written, kind, options)
        kind = connection_class(kind)
        if found:
            kind = following(kind)
            options["primary"] = Primary(found, options, own)
        limits = {"socket_timeout": socket_timeout}
        if "path" not in options or redis.VERSION >= (4, 6):  # before, a unix socket takes no such limit
            limits["socket_connect_timeout"] = socket_timeout
        waiting_pool: Any = WaitingPool  # its base has no annotations
        pool = waiting_pool(
            **options,
            max_connections=connections,
            **limits,
            # Retried after a closed connection, not after a timeout: a silent server is not asked again.
            connection_class=kind,
            retry=Retry(ConstantBackoff(_RETRY_PAUSE_SECONDS), retries, (ConnectionLost,)),
        )
        # Makes a connection without connecting it, so that wrong options raise now.
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError, *ANY) as error:
        raise ConfigurationError(f"REDIS_URL={without_password(written)!r}: {error}") from None
    return client_of(pool)


class _UnobservedPipeline(redis.client.Pipeline):
    """A pipeline without the wrappers that tracing libraries put around redis-py's methods."""

    execute = unwrap(redis.client.Pipeline.execute)
    immediate_execute_command = unwrap(redis.client.Pipeline.immediate_execute_command)


class _Unobserved(redis.Redis):
    """A client that creates no spans: our polling would fill an app's traces.

    OpenTelemetry and the like wrap the methods of redis-py's own classes, before or after this is imported.
    """

    execute_command = unwrap(redis.Redis.execute_command)

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipe = super().pipeline(*args, **options)
        pipe.__class__ = _UnobservedPipeline  # the constructor's arguments differ between versions
        return pipe


class _ClosesItsPool(_Unobserved):
    """A client whose `close` closes its pool too, which redis-py does only from version 5 on."""

    def close(self) -> None:
        super().close()
        self.connection_pool.disconnect()


def client_of(pool: redis.ConnectionPool) -> redis.Redis:
    """Return a client that owns `pool`: closing the client closes the pool."""
    if hasattr(redis.Redis, "from_pool"):
        return _Unobserved.from_pool(pool)
    return _ClosesItsPool(connection_pool=pool)


def with_connections(client: redis.Redis, connections: int) -> redis.Redis:
    """Return a client of the same server with connections of its own, for which its threads queue up."""
    pool: Any = client.connection_pool
    waiting_pool: Any = WaitingPool  # its base has no annotations
    options = {**pool.connection_kwargs, "connection_class": pool.connection_class}
    return client_of(waiting_pool(**options, max_connections=connections))


def eviction(client: redis.Redis) -> str:
    """Return a warning about a server that evicts keys when it is full; empty if it does not."""
    memory: Any = client.info("memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or not memory.get("maxmemory"):
        return ""
    return (
        f"Redis has maxmemory-policy {policy}: when it is full it throws calls and results away without a "
        "word. Set it to noeviction"
    )


class Commands:
    """Sends single commands over a client's connections, faster than redis-py's client.

    redis-py takes several times as long for a command: it keeps metrics, checks arguments, and checks each
    connection before use. Here a closed connection is noticed when the command fails, and the command is
    sent again. Therefore only commands that may run twice belong here. After a timeout nothing is sent again.
    """

    def __init__(self, client: redis.Redis, retries: int = _RETRIES) -> None:
        self._pool: Any = client.connection_pool
        self._retries = retries
        #: When a command last timed out: threads that have waited for a connection since then give up.
        self._silent_since = -math.inf

    def send(self, *words: str | bytes | float) -> Any:
        """Send one command and return its reply; raises what redis-py raises."""
        packed = pack_command(words)
        tries = 0
        while True:
            connection = self._take()
            try:
                connection.send_pieces((packed,))
                return connection.reply()
            except ConnectionLost:
                if tries >= self._retries:
                    raise
            except ErrorReply:
                raise
            except BaseException as error:
                self._note_silence(error)
                # An interrupted command, as by gevent's Timeout, has left its reply in the connection.
                connection.disconnect()
                raise
            finally:
                self._pool.pool.put_nowait(connection)
            # A connection closed while idle is replaced at once; the server itself may need a moment.
            if tries:
                time.sleep(_RETRY_PAUSE_SECONDS)
            tries += 1

    def send_all(
        self, commands: Sequence[tuple[str | bytes | float, ...]], *, refusals: bool = False
    ) -> list[Any]:
        """Send commands in one batch, without retries; raises what redis-py raises for an absent server.

        For a command that can never succeed (see `redis_errors`), the error stands in place of its reply;
        with `refusals` so it does for one that Redis does not take now.
        """
        packed = b"".join(map(pack_command, commands))
        connection = self._take()
        try:
            connection.send_pieces((packed,))
            return [self._reply(connection, refusals=refusals) for _ in commands]
        except BaseException as error:
            self._note_silence(error)
            connection.disconnect()  # drops the replies that were not read
            raise
        finally:
            self._pool.pool.put_nowait(connection)

    def begin(self, pieces: Sequence[Buffer], replies: int) -> Replies:
        """Send commands in pieces, without retries; return what then reads the replies, so many."""
        connection = self._take()
        try:
            connection.send_pieces(pieces)
        except BaseException as error:
            self._give_up(connection, error)
            raise
        return partial(self._finish, connection, replies)

    def _finish(self, connection: Any, replies: int) -> list[Any]:
        try:
            found = [self._reply(connection, refusals=True) for _ in range(replies)]
        except BaseException as error:
            self._give_up(connection, error)
            raise
        self._pool.pool.put_nowait(connection)
        return found

    def _give_up(self, connection: Any, error: BaseException) -> None:
        self._note_silence(error)
        connection.disconnect()  # drops the replies that were not read
        self._pool.pool.put_nowait(connection)

    def _note_silence(self, error: BaseException) -> None:
        # Only if it had the full SOCKET_TIMEOUT: a shorter limit of `within` proves nothing.
        if isinstance(error, Silent) and seconds_left(math.inf) == math.inf:
            self._silent_since = time.monotonic()

    @staticmethod
    def _reply(connection: Any, *, refusals: bool) -> Any:
        try:
            return connection.reply()
        except ErrorReply as error:
            if isinstance(error, Refused) and not refusals:
                raise
            return error

    def _take(self) -> Any:
        pool = self._pool
        if pool.pid != os.getpid():
            pool.reset()
        asked = time.monotonic()
        try:
            connection = pool.pool.get(timeout=max(0.0, seconds_left(TURN_TIMEOUT)))
        except Empty:
            raise Silent("no connection came free") from None
        if self._silent_since > asked:
            # Otherwise all waiting threads would time out, one after the other.
            pool.pool.put_nowait(connection)
            raise Silent("it did not answer who came before")
        return connection or pool.make_connection()


class Scripts:
    """The Lua scripts of `lua/`, by name. Each runs in one round trip, and may safely run twice."""

    def __init__(
        self, send: Callable[..., Any], begin: Callable[[Sequence[Buffer], int], Replies] | None = None
    ) -> None:
        """Use `send` for each command: `Commands.send`, or the like; `begin`: `Commands.begin`."""
        #: Sends commands in pieces; None: not here.
        self.begin = begin
        #: Sends one command that is no script.
        self.command = self._send = send

    def run(self, name: str, keys: list[str], args: list[Any]) -> Any:
        try:
            return self._send("EVALSHA", digest(name), len(keys), *keys, *args)
        except ScriptMissing:
            # EVAL with the whole text, which the server then keeps: it might lose a script between
            # SCRIPT LOAD and EVALSHA.
            return self._send("EVAL", source(name), len(keys), *keys, *args)
