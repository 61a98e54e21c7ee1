"""Checks, when a process starts, whether a server can keep `durability="fsync"`, and what it costs there."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

import redis

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.store import keys
from wsgi_timeout.store.connection import Commands, connect
from wsgi_timeout.store.redis_errors import AWAY, ErrorReply
from wsgi_timeout.store.synced import SYNC_MS

log = logging.getLogger("wsgi_timeout")

#: How many syncs one call waits for: when it is accepted, when it begins, when it ends.
_STEPS = 3
#: TTL in seconds of the key that this check writes.
_PROBE_SECONDS = "5"


class CannotSync(ConfigurationError):
    """The server cannot tell what is on its disk, or writes nothing to it."""


def log_cost(url: str) -> None:
    """Log what it costs on the server of `url`; raises `CannotSync`."""
    log.warning(cost(url))


def cost(url: str) -> str:
    """Return a line that says which `appendfsync` is set and what a call costs then.

    A server that is away, or a replica now, may yet become one that can: the line says so.

    Raises:
        CannotSync: the server of `url` cannot keep it: it is too old, has no append-only file, never
            syncs it, or its user may not ask.
    """
    client = connect(url, connections=1)
    try:
        return cost_on(client)
    finally:
        client.close()


def cost_on(client: redis.Redis) -> str:
    """Do as `cost` with a client."""
    try:
        policy, on_rewrite = _setting(client, "appendfsync"), _setting(client, "no-appendfsync-on-rewrite")
        if policy == "no":
            raise _cannot("appendfsync is no, so that nobody knows when something is on disk", _SET_ALWAYS)
        if policy == "everysec" and on_rewrite == "yes":
            raise _cannot("it does not sync during a rewrite", "set no-appendfsync-on-rewrite no")
        if policy == "everysec":
            _check_info(client)
        seconds = _seconds_of_a_sync(client)
    except AWAY as error:
        return (
            f"durability=fsync: Redis is away ({error}); calls are refused until it can say what is on disk"
        )
    if seconds is None:
        return (
            f"durability=fsync: {_named(policy)}; a write was not on disk within {SYNC_MS / 1000:g} s, and "
            "calls are refused while that is so: look at the server's disk"
        )
    took = "1.1 s" if policy == "everysec" else f"{seconds * 1000:.1f} ms"
    return (
        f"durability=fsync: {_named(policy)}; a write is on disk after {took}, and each call waits for "
        f"{_STEPS} of them: when it is accepted, begun and ended"
    )


_SET_ALWAYS = "set appendfsync always (or everysec, which takes over a second a step)"


def _named(policy: str) -> str:
    if policy == "everysec":
        return "appendfsync everysec (always takes milliseconds)"
    return f"appendfsync {policy}" if policy else _UNKNOWN


_UNKNOWN = "appendfsync must be always, and this user may not ask for it (+config|get)"


def _setting(client: Any, name: str) -> str:
    """Return a setting of the server; empty if this user may not ask for it."""
    with suppress(ErrorReply):
        found = {_word(each): _word(value) for each, value in client.config_get(name).items()}
        return found.get(name, "")
    return ""


def _check_info(client: Any) -> None:
    """Raise `CannotSync` for a user who may not see a sync: see `everysec`."""
    try:
        client.info("persistence")
    except ErrorReply as error:
        why = f"its user may not use INFO, which shows the syncs of everysec ({error})"
        raise _cannot(why, "add +info to its rights, or set appendfsync always") from None


def _word(raw: Any) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)


def _seconds_of_a_sync(client: redis.Redis) -> float | None:
    """Return how many seconds a write took to be on disk; None if it was not in time."""
    commands = Commands(client)
    began = time.monotonic()
    written, synced = commands.send_all(
        [("SET", keys.PROBE, "1", "EX", _PROBE_SECONDS), ("WAITAOF", 1, 0, SYNC_MS)], refusals=True
    )
    seconds = time.monotonic() - began
    commands.send("UNLINK", keys.PROBE)
    if isinstance(synced, Exception):
        _refuse(str(synced), client)
        return None
    # An error here means a full server: every call finds out for itself whether it still is.
    return None if isinstance(written, Exception) or synced[0] < 1 else seconds


def _refuse(said: str, client: Any) -> None:
    """Raise `CannotSync` for an error of WAITAOF; not for a replica's, which may be promoted later."""
    if "unknown command" in said.lower():
        raise _cannot(f"{_version(client)} knows no WAITAOF", "use Redis 7.2 or newer, or Valkey")
    if said.startswith("NOPERM"):
        raise _cannot("its user may not use WAITAOF", "add +waitaof to its rights (ACL SETUSER)")
    if "appendonly" in said:
        raise _cannot("it has no append-only file", "set appendonly yes, and appendfsync always or everysec")


def _version(client: Any) -> str:
    with suppress(ErrorReply):
        return f"this server, Redis {client.info('server').get('redis_version')},"
    return "this server"


def _cannot(why: str, remedy: str) -> CannotSync:
    return CannotSync(f"durability='fsync' cannot be kept on this Redis: {why}; {remedy}")
