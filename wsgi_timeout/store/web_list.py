"""The web processes of a Redis, as they describe themselves every half minute: for `wsgi-timeout doctor`."""

from __future__ import annotations

import json
import math
import os
import socket
from dataclasses import asdict, dataclass, fields
from typing import Any

import redis

from wsgi_timeout.store import keys
from wsgi_timeout.store.connection import Commands, Scripts
from wsgi_timeout.store.failed_calls import names

#: Seconds between two descriptions of one process, and after which a silent one is forgotten.
TOLD_SECONDS = 30.0
_TTL = 100


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
        for value in commands.hvals(keys.web(name)):
            try:
                told, _, described = value.partition(b" ")
                values = json.loads(described)
                process = WebProcess(**{field.name: values[field.name] for field in fields(WebProcess)})
                found.setdefault(name, []).append((float(told), process))
            except (ValueError, KeyError, TypeError):
                continue
    return found


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isinf(value) else value
