"""The rights that a Redis user of ours needs, in groups, and the doctor's look at whether it has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from wsgi_timeout.serving.finding import Finding
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.redis_errors import ErrorReply

#: A key of RQ's kind that is never there: no call has such an id.
_RQ_PROBE = rq_state.job_key("doctor")
_KEY = keys.PROBE


class Group(NamedTuple):
    """Commands that belong together: without one of them something of ours cannot work."""

    #: What cannot work.
    purpose: str
    #: Each command, `name` or `name|sub`, with arguments that change nothing for long.
    probes: Mapping[str, tuple[Any, ...]]


GROUPS = {
    "scripts": Group(
        "each step of a call is a script",
        {
            "eval": ("return 1", 0),
            "evalsha": ("0" * 40, 0),
            "script|load": ("return 1",),
        },
    ),
    "waiting": Group(
        "workers and waiting requests block on lists",
        {
            "blmove": (_KEY, _KEY, "LEFT", "RIGHT", 0.01),
            "blmpop": (0.01, 1, _KEY, "LEFT"),
            "blpop": (_KEY, 0.01),
            "lmove": (_KEY, _KEY, "LEFT", "RIGHT"),
        },
    ),
    "hashes": Group(
        "calls and bodies are hashes",
        {
            "hdel": (_KEY, "field"),
            "hexists": (_KEY, "field"),
            "hget": (_KEY, "field"),
            "hgetall": (_KEY,),
            "hincrby": (_KEY, "field", 1),
            "hkeys": (_KEY,),
            "hlen": (_KEY,),
            "hmget": (_KEY, "field"),
            "hscan": (_KEY, 0),
            "hset": (_KEY, "field", "value"),
            "hsetnx": (_KEY, "field", "value"),
            "hstrlen": (_KEY, "field"),
            "hvals": (_KEY,),
        },
    ),
    "lists": Group(
        "queues are lists",
        {
            "lindex": (_KEY, 0),
            "llen": (_KEY,),
            "lpop": (_KEY, 1),
            "lpos": (_KEY, "value"),
            "lpush": (_KEY, "value"),
            "lrange": (_KEY, 0, 0),
            "lrem": (_KEY, 1, "value"),
            "ltrim": (_KEY, 0, 0),
            "rpop": (_KEY,),
            "rpush": (_KEY, "value"),
        },
    ),
    "sets": Group(
        "RQ's lists of workers and of started and delayed calls are sets",
        {
            "sadd": (_KEY, "value"),
            "smembers": (_KEY,),
            "srem": (_KEY, "value"),
            "zadd": (_KEY, 0, "value"),
            "zcard": (_KEY,),
            "zrange": (_KEY, 0, 0),
            "zrangebyscore": (_KEY, 0, 0),
            "zrem": (_KEY, "value"),
            "zrevrange": (_KEY, 0, 0),
            "zscore": (_KEY, "value"),
        },
    ),
    "keys": Group(
        "what is not needed any more expires, and goes",
        {
            "exists": (_KEY,),
            "expire": (_KEY, 5),
            "incr": (_KEY,),
            "pexpire": (_KEY, 5000),
            "pttl": (_KEY,),
            "set": (_KEY, "1", "EX", 5),
            "time": (),
            "ttl": (_KEY,),
            "type": (_KEY,),
            "unlink": (_KEY,),
        },
    ),
    # Asked for together: see `_transaction`.
    "transactions": Group(
        "large arguments, and a worker's start, are written as one", {"multi": (), "exec": ()}
    ),
    # See `_channel`.
    "channels": Group("RQ's commands to workers come on channels", {"subscribe": (), "unsubscribe": ()}),
}
#: Without these nothing fails: warnings and metrics of memory, disks and eviction are missing.
OPTIONAL = ("info",)
#: Beside the commands: keys, channels, and what a connection begins with.
BASE = (
    *(f"~{pattern}" for pattern in keys.PATTERNS),
    f"&{keys.CHANNELS}",
    "+@connection",
    "-@admin",
    "-@dangerous",
)


def needed() -> tuple[str, ...]:
    """Return the least rights of a user, as words for `ACL SETUSER`."""
    return (*BASE, *(f"+{command}" for group in GROUPS.values() for command in group.probes))


def rights(client: Any, _settings: Settings) -> Iterator[Finding]:
    """Do what our processes do, with a key of the doctor's own; a line for each group that is refused."""
    found = [*_commands(client), *_keys(client), *_channel(client)]
    if not found:
        yield Finding("rights", "ok", "all commands, keys and channels that we need may be used")
    for what, missing in found:
        yield Finding("rights", "fail", what, f"give this user {missing}: see docs/reliability.md")


def _commands(client: Any) -> Iterator[tuple[str, str]]:
    for name, group in GROUPS.items():
        if name == "channels":
            continue
        if name == "transactions":
            refused = _transaction(client)
        else:
            refused = [command for command, words in group.probes.items() if _refuses(client, command, words)]
        if refused:
            yield (
                f"{name}: this user may not run {', '.join(refused).upper()}: {group.purpose}",
                " ".join(f"+{command}" for command in refused),
            )


def _transaction(client: Any) -> list[str]:
    try:
        client.pipeline(transaction=True).exists(_KEY).execute()
    except ErrorReply as error:
        # Which of the two is not told by all servers.
        return ["multi", "exec"] if "permission" in str(error).lower() else []
    return []


def _keys(client: Any) -> Iterator[tuple[str, str]]:
    for pattern, key in zip(keys.PATTERNS, (_KEY, _RQ_PROBE), strict=True):
        # Not `exists` alone: a right may be one to read.
        if any(_refuses(client, command, (key,), of="key") for command in ("exists", "unlink")):
            yield f"keys: this user may not read and write {pattern}", f"~{pattern}"


def _channel(client: Any) -> Iterator[tuple[str, str]]:
    channel = client.pubsub()
    try:
        channel.subscribe(rq_state.command_channel("doctor"))
        channel.parse_response(timeout=1)
    except ErrorReply as error:
        told = str(error)
        missing = f"&{keys.CHANNELS}" if "channel" in told else "+subscribe +unsubscribe"
        yield f"channels: this user may not listen to {keys.CHANNELS}: {told}", missing
    finally:
        channel.close()


def _refuses(client: Any, command: str, words: tuple[Any, ...], of: str = "command") -> bool:
    """Return whether a command is refused: for itself, or (`of="key"`) for its keys."""
    try:
        client.execute_command(*command.upper().split("|"), *words)
    except ErrorReply as error:
        told = str(error).lower()
        if "permission" not in told:
            return False  # it was run: a key of another type, or a command that an old server does not know
        return ("to access" in told) == (of == "key")  # else "to run"
    return False
