"""URLs of sentinels: `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB`.

User and password in the URL are for the servers; `?sentinel_username=` and `?sentinel_password=` are for the
sentinels. `rediss+sentinel://` uses TLS for both, with redis-py's `ssl_...` options.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_URL = re.compile(r"(rediss?)\+sentinel://((?:[^@/?]*@)?)([^@/?]+)/([^/?]+)((?:/\d*)?)((?:\?.*)?)")
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
