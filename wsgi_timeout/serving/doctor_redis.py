"""What the doctor looks at in Redis: the server itself, its memory, its disk, what we may do there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsgi_timeout.serving.finding import Finding
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import durability as on_disk
from wsgi_timeout.store import keys
from wsgi_timeout.store.failed_calls import names
from wsgi_timeout.store.record import number

_OLDEST_REDIS = (6, 2)
_CLOCK_SECONDS = 5.0
#: Parts of a budget, or of memory, over which it is nearly used up.
_NEARLY = 0.9
_MIB = 2**20


def server(client: Any, _settings: Settings) -> Iterator[Finding]:
    """Look at version, cluster mode and role."""
    info = client.info()
    version = str(info.get("redis_version", "0"))
    kind = f"{info.get('server_name', 'redis')} {info.get('valkey_version', version)}"
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_REDIS:
        yield Finding("version", "fail", kind, "use Redis 6.2 or newer, or Valkey")
    else:
        yield Finding("version", "ok", kind)
    if info.get("cluster_enabled"):
        yield Finding("cluster", "fail", "cluster mode is on", "use one server, or a primary with Sentinel")
    if info.get("role", "master") != "master":
        yield Finding(
            "role", "fail", "this is a replica, which takes no writes", "set REDIS_URL to the primary"
        )


def memory(client: Any, settings: Settings) -> Iterator[Finding]:
    """Look at eviction, and at memory against `max_buffered_bytes`."""
    info = client.info("memory")
    policy, limit = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", 0))
    used = int(info.get("used_memory", 0))
    told = f"{used // _MIB} MiB used"
    if policy != "noeviction":
        yield Finding("eviction", "fail", f"maxmemory-policy {policy} deletes calls", "set it to noeviction")
    else:
        yield Finding("eviction", "ok", policy)
    if not limit:
        remedy = "set maxmemory, to twice max_buffered_bytes or more"
        yield Finding("memory", "warn", f"{told}, maxmemory is not set: a full machine kills it", remedy)
    elif used > _NEARLY * limit:
        what = f"{told} of {limit // _MIB} MiB: once it is full new requests get a 503"
        yield Finding("memory", "fail", what, "give it more maxmemory, or start more workers")
    elif limit < settings.max_buffered_bytes:
        budget = settings.max_buffered_bytes // _MIB
        what = f"maxmemory is {limit // _MIB} MiB, max_buffered_bytes {budget} MiB"
        yield Finding("memory", "warn", what, "set WSGI_TIMEOUT_MAX_BUFFERED_BYTES to half of maxmemory")
    else:
        yield Finding("memory", "ok", f"{told} of {limit // _MIB} MiB")
    for name in names(client):
        kept, most = (number(value) for value in client.hmget(keys.buffered(name), "*", "+"))
        if most and kept > _NEARLY * most:
            what = f"calls of wt:{name} keep {kept // _MIB} of {most // _MIB} MiB (max_buffered_bytes)"
            yield Finding("budget", "warn", what, "start more workers, or raise it with maxmemory")


def persistence(client: Any, _settings: Settings) -> Iterator[Finding]:
    """Look at the append-only file."""
    info = client.info("persistence")
    disk = "look at the server's disk"
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield Finding("persistence", "fail", "a snapshot failed: it may refuse all writes", disk)
    if not info.get("aof_enabled"):
        remedy = "set appendonly yes"
        yield Finding("persistence", "warn", "no append-only file: a restart loses every call", remedy)
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield Finding("persistence", "fail", "the append-only file cannot be written", disk)
    else:
        yield Finding("persistence", "ok", "append-only")


def durability(client: Any, settings: Settings) -> Iterator[Finding]:
    """Look whether the server can keep `durability="fsync"`, where that is set, and what it costs."""
    if not settings.durable:
        return
    try:
        said = on_disk.cost_on(client)
    except on_disk.CannotSync as error:
        yield Finding("durability", "fail", str(error), "or leave WSGI_TIMEOUT_DURABILITY out")
    else:
        yield Finding("durability", "ok", said)


def clock(client: Any, _settings: Settings) -> Iterator[Finding]:
    """Compare this machine's clock with that of Redis' machine."""
    seconds, microseconds = client.time()
    ahead = time.time() - seconds - microseconds / 1e6
    yield of_clock("this machine", ahead)


def of_clock(whose: str, ahead: float) -> Finding:
    """Return what is said of a clock that is so many seconds ahead of Redis'."""
    if abs(ahead) > _CLOCK_SECONDS:
        what = f"the clock of {whose} is {ahead:+.0f} s from that of Redis' machine"
        return Finding("clocks", "warn", what, "run an NTP client on both")
    return Finding("clocks", "ok", f"{whose} is {ahead:+.2f} s from Redis' machine")


def is_private(client: Any) -> bool:
    """Return whether Redis listens on a unix socket that only this user can open."""
    path = client.connection_pool.connection_kwargs.get("path")
    try:
        return bool(path) and any(not each.stat().st_mode & 0o077 for each in (Path(path), Path(path).parent))
    except OSError:
        return False
