"""What Redis answers when it does not do what it was told: the one place that says what kind it is.

    away       it cannot be reached, is silent, loads, or does not know our password     `AWAY`
    refused    it takes no such command now: full, a replica, disk, rights taken away    `Refused`
               it did, and what was written is not on disk (`durability="fsync"`)        `NotOnDisk`
    a bug      what will fail however often it is sent: our error, or junk in a key      the rest

The first two may be sent again later, together they are `UNAVAILABLE`. A bug skips the one item that
caused it and never ends a loop: `ANY` is all three. Servers change the wording of their refusals, so an
error reply counts as a refusal unless it is known to be a bug.

Other modules name redis-py's exceptions by this one only.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any

import redis
from redis.connection import DefaultParser

from wsgi_timeout.errors import RedisUnavailable


class Refused(redis.exceptions.ResponseError):
    """Redis takes no such command now, and may take it later."""


class NotOnDisk(Refused):
    """Redis took a command, and what it wrote is not on disk: too slow a disk, or no append-only file."""


#: The connection was refused or closed.
ConnectionLost = redis.exceptions.ConnectionError
#: No reply came in time.
Silent = redis.exceptions.TimeoutError
#: The user or password is wrong: a `ConnectionLost`, that no waiting mends.
WrongPassword = redis.exceptions.AuthenticationError
#: The server has lost a Lua script, which is then sent whole.
ScriptMissing = redis.exceptions.NoScriptError
#: An error came as the reply: `Refused`, or else a bug.
ErrorReply = redis.exceptions.ResponseError

AWAY = (ConnectionLost, Silent, OSError)
UNAVAILABLE = (*AWAY, Refused)
ANY = (redis.exceptions.RedisError, OSError)

#: The first word of an answer; within a script Redis 6.2 puts words of its own before it.
_CODE = re.compile(r"(?:.*@user_script: ?\d+: -?)?([A-Z]+)\b", re.DOTALL)
#: What no repetition mends, after the code ERR: a wrong command or argument, an error of a script.
_FOR_EVER = re.compile(
    r"attempt to |bad argument|too many results|stack overflow|unknown (?:redis )?command|unknown subcommand"
    r"|wrong number of arg|syntax error|not an integer|not a valid float|out of range|invalid|no such key"
    r"|hash value|lua redis lib|compiling|nonexistent global|protocol",
    re.IGNORECASE,
)


def is_bug(text: str) -> bool:
    """Whether an error reply says that the command can never succeed on this data."""
    code = _CODE.match(text)
    if code and code[1] not in {"ERR", "WRONGTYPE"}:
        return False
    return text.startswith("WRONGTYPE") or (code and code[1] == "WRONGTYPE") or bool(_FOR_EVER.search(text))


class Parser(DefaultParser):  # type: ignore[misc, valid-type]  # chosen when redis-py is imported
    """redis-py's parser, with refusals told from bugs; it knows an exception for a few of both only."""

    def parse_error(self, response: str) -> Exception:
        error: Exception = super().parse_error(response)
        if isinstance(error, (*AWAY, ScriptMissing)) or is_bug(response):
            return error
        refused = Refused(response)
        refused.__cause__ = error
        return refused


def not_on_disk(reply: Any) -> NotOnDisk | None:
    """Return what a reply to `WAITAOF 1 0` says: None if all that its connection wrote is on disk.

    Whatever else it says may be otherwise later: the disk is slow, `appendonly` was switched off, or a
    failover has led to a replica or to a server that is too old.
    """
    if isinstance(reply, Exception):
        return NotOnDisk(f"WAITAOF: {reply}")
    if isinstance(reply, (list, tuple)) and reply and int(reply[0]) < 1:
        return NotOnDisk("Redis has not put it on disk in time")
    return None


def what_happened(error: BaseException) -> str:
    """Say for a log what became of Redis: a wrong password is no outage, and mended otherwise."""
    if isinstance(error, WrongPassword):
        return f"Redis refuses the user or password of REDIS_URL ({error})"
    if isinstance(error, UNAVAILABLE):
        return f"Redis is away ({error})"
    return f"Redis holds what is not ours, or we asked for what it cannot do ({error})"


class _UnavailableIsRefusal:
    """What `unavailable_is_refusal` returns: no generator, since each request has one."""

    def __enter__(self) -> None:
        """Begin a block."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, UNAVAILABLE):
            raise RedisUnavailable(f"Redis does not take this request: {error}") from error


_unavailable_is_refusal = _UnavailableIsRefusal()


def unavailable_is_refusal() -> AbstractContextManager[None]:
    """Turn a Redis that is away, or refuses, into `RedisUnavailable` (503), in a `with` block."""
    return _unavailable_is_refusal
