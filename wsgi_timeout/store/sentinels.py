"""`redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB`: every new connection asks the sentinels for the primary.

User and password in the URL are for the servers; `?sentinel_username=` and `?sentinel_password=` are for the
sentinels. `rediss+sentinel://` uses TLS for both, with redis-py's `ssl_...` options.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

_URL = re.compile(r"(rediss?)\+sentinel://((?:[^@/?]*@)?)([^@/?]+)/([^/?]+)((?:/\d*)?)((?:\?.*)?)")
#: Seconds without an answer after which the next sentinel is asked.
_SENTINEL_SECONDS = 1.0
_PORT = 26379

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """A parsed `redis+sentinel://` URL."""

    addresses: tuple[Address, ...]
    service: str
    #: A URL for redis-py with the server's options; its host is replaced by the primary's.
    server_url: str


def parse(url: str) -> SentinelUrl | None:
    """Parse a URL of sentinels; None for any other URL. Raises `ValueError` for a malformed one."""
    if "+sentinel://" not in url:
        return None
    found = _URL.fullmatch(url)
    if not found:
        raise ValueError("sentinels are written redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
    scheme, account, hosts, service, database, query = found.groups()
    addresses = tuple(_address(host) for host in hosts.split(","))
    return SentinelUrl(addresses, service, f"{scheme}://{account}sentinels{database or '/0'}{query}")


def _address(host: str) -> Address:
    # An IPv6 address stands in brackets.
    found = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+)(?::(\d+))?", host)
    if not found:
        raise ValueError(f"{host!r} is no HOST:PORT of a sentinel")
    return found[1].strip("[]"), int(found[2] or _PORT)


def take_own_options(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the options for the sentinels from those of the URL, and return them."""
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    return {name: value for name, value in own.items() if value is not None}


def primary_finder(url: SentinelUrl, options: dict[str, Any], own: dict[str, Any]) -> Callable[[], Address]:
    """Return a function that asks the sentinels for the primary's address; it raises `ConnectionLost`."""
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    make: Any = Sentinel  # without annotations in redis-py
    sentinels = make(
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

    def primary() -> Address:
        host, port = sentinels.discover_master(url.service)
        return str(host), int(port)

    return primary


@cache
def asking(kind: type) -> type:
    """Return a subclass of one of redis-py's connection classes that connects to the primary."""
    return type(kind.__name__, (_AsksSentinels, kind), {})


class _AsksSentinels:
    """A mixin for redis-py's connections: asks for the primary's address before each connect."""

    def __init__(self, *args: Any, primary: Callable[[], Address], **options: Any) -> None:
        super().__init__(*args, **options)
        self._primary = primary

    def _connect(self) -> Any:
        self.host, self.port = self._primary()
        return super()._connect()  # type: ignore[misc]
