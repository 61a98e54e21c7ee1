"""The web processes of a Redis, as they describe themselves every 15 s, for `wsgi-timeout doctor`."""

from __future__ import annotations

import json
import math
import os
import socket
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import redis

from wsgi_timeout.store import junk, keys
from wsgi_timeout.store.connection import Commands, Scripts
from wsgi_timeout.store.failed_calls import names

#: Seconds between two descriptions of one process, after which it is silent, and is forgotten.
TOLD_SECONDS = 15.0
SILENT_SECONDS = 35.0
_TTL = 60
#: More than any number that a process tells.
_MOST = 1e15


@dataclass(frozen=True, slots=True)
class WebProcess:
    """One web process that has handled a request."""

    #: HOST:PID.
    process: str
    #: What runs it: "gunicorn's ...", "waitress"; empty: something that we do not know.
    server: str
    #: Requests that it handles at a time; None: as many as come, or it is not known.
    threads: float | None
    #: Seconds after which the server ends a request; None: it does not.
    timeout: float | None
    max_waiting: int
    #: The settings' `wait_seconds`, not cut below the server's timeout.
    wait_seconds: float
    #: Of the secret, see `seals`.
    secret: str
    version: str
    #: Its wall clock when it told this, in seconds since 1970.
    clock: float
    #: Of the kernel: in which its number is unique; empty: not known.
    pid_namespace: str = ""

    def is_sound(self) -> bool:
        """Return whether each value is of its type: anybody may have written them."""
        texts = (self.process, self.server, self.secret, self.version, self.pid_namespace)
        optional = [value for value in (self.threads, self.timeout) if value is not None]
        numbers = (*optional, self.max_waiting, self.wait_seconds, self.clock)
        return all(isinstance(value, str) for value in texts) and all(map(_is_number, numbers))

    def has_ended(self) -> bool:
        """Return whether it is seen to be gone: it was one of this machine, and of this container."""
        host, _, pid = self.process.rpartition(":")
        if host != socket.gethostname() or not self.pid_namespace or self.pid_namespace != pid_namespace():
            return False
        return not Path("/proc", pid).exists()


def pid_namespace() -> str:
    """Return what tells this container's process numbers from those of others; empty: it is no Linux."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def process_here() -> str:
    """Return what tells this process from those of other machines."""
    return f"{socket.gethostname()}:{os.getpid()}"


def tell(client: redis.Redis, name: str, process: WebProcess) -> None:
    """Describe a web process of a name; raises what redis-py raises."""
    described = json.dumps({key: _finite(value) for key, value in asdict(process).items()})
    scripts = Scripts(Commands(client).send)
    scripts.run("web", [keys.web(name)], [process.process, described, _TTL])


def list_web(client: redis.Redis) -> dict[str, list[tuple[float, WebProcess]]]:
    """Return the web processes by their names, each with Redis' clock when it told; junk is left out."""
    commands: Any = client  # redis-py's annotations know no bytes
    found: dict[str, list[tuple[float, WebProcess]]] = {}
    for name in names(client):
        key = keys.web(name)
        for value in junk.read(key, partial(commands.hvals, key), []):
            if read := _read(value):
                found.setdefault(name, []).append(read)
            else:
                junk.note_entry(key, value)
    return found


def _read(value: bytes) -> tuple[float, WebProcess] | None:
    """Return what a process told of itself, and when; None if it is junk."""
    told, _, described = value.partition(b" ")
    try:
        values = json.loads(described)
        known = {field.name: values[field.name] for field in fields(WebProcess) if field.name in values}
        process, when = WebProcess(**known), float(told)
    except (ValueError, TypeError, RecursionError):
        return None
    return (when, process) if process.is_sound() and _is_number(when) else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MOST


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isinf(value) else value
