"""Parses `REDIS_URL`, also as other libraries write it; what is not understood is refused at start."""

from __future__ import annotations

import inspect
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

import redis

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.store.redis_errors import AWAY, ErrorReply, Refused

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}
#: Celery's names for redis-py's none, optional and required.
_CERTIFICATES = {"CERT_NONE": "none", "CERT_OPTIONAL": "optional", "CERT_REQUIRED": "required"}
#: Options that are ignored: other users of the URL may need them, but our connections have limits of our own.
_IGNORED = {"max_connections", "timeout", "socket_timeout", "socket_connect_timeout"}


def without_password(url: str) -> str:
    """Return the URL without its password, for logs."""
    return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"(//[^/:@]*:).*@", r"\1***@", url))


def understood(url: str) -> str:
    """Return the URL in redis-py's form; raises `ConfigurationError` for one that cannot work."""
    # Not by `urlsplit`: putting its parts together again loses slashes of a unix socket's path.
    scheme, colon, rest = url.partition(":")
    address, _, query = rest.partition("?")
    options = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "decode_responses" and value.lower() not in {"false", "no", "0"}:
            raise _wrong(url, "decode_responses is for clients of text, and bodies are bytes: leave it out")
        if name not in {*_IGNORED, "decode_responses"}:
            options.append((name, _CERTIFICATES.get(value, value) if name == "ssl_cert_reqs" else value))
    _check_database(url, scheme, address)
    address += "?" + urlencode(options) if options else ""
    return f"{_SCHEMES.get(scheme, scheme)}{colon}{address}"


def _check_database(url: str, scheme: str, address: str) -> None:
    """Raise `ConfigurationError` for a path that is not a number: redis-py would use database 0."""
    database = address.removeprefix("//").partition("/")[2]
    if scheme in {"redis", "rediss", *_SCHEMES} and not re.fullmatch(r"\d*", database):
        raise _wrong(url, f"the database is a number, not {database!r}, as in redis://localhost:6379/0")


def check_options(url: str, kind: type, options: dict[str, Any]) -> None:
    """Raise `ConfigurationError` for an option that redis-py's connections do not have."""
    known = {name for each in kind.__mro__[:-1] for name in inspect.signature(each).parameters}
    if unknown := sorted(options.keys() - known):
        raise _wrong(url, f"redis-py knows no option {unknown[0]!r}")


def check_server(client: redis.Redis, url: str) -> None:
    """Raise `ConfigurationError` for a server that cannot be used; one that is away may come back."""
    try:
        client.ping()
        mode: Any = client.info("server")
    except (*AWAY, Refused):
        return
    except ErrorReply as error:
        raise _wrong(url, str(error)) from None
    if mode.get("redis_mode", mode.get("server_mode")) == "cluster":
        raise _wrong(url, "this server runs in Cluster mode, which is not supported: name one without it")


def _wrong(url: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"REDIS_URL={without_password(url)!r}: {why}")
