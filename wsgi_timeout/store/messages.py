"""Messages between processes: frozen values, as msgpack behind a version byte, never pickled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any

import msgpack

from wsgi_timeout.compat import Self
from wsgi_timeout.errors import ConfigurationError

#: The version of the wire format, which must be the same in both halves of a deployment.
WIRE_VERSION = 2

#: The entry of a call that a front inside the app has captured (`RequestTimeouts`). Workers run the
#: `wsgi_app` that it has replaced: middleware around the front has run in the web process.
INNER_ENTRY = "place"

#: The types of the fields by their annotations: messages from Redis are checked, since anybody may have
#: written them.
_KINDS: dict[str, Any] = {
    "bool": bool,
    "bytes | None": (bytes, type(None)),
    "dict[str, Any]": dict,
    "float": (int, float),
    "int": int,
    "list[tuple[str, str]]": list,
    "str": str,
}

_VERSION_BYTE = bytes([WIRE_VERSION])


class OtherVersion(ConfigurationError):
    """A message of another wire version."""


@dataclass(frozen=True, slots=True)
class _Message:
    def pack(self) -> bytes:
        # WSGI strings are latin-1, but some servers let surrogates through.
        kind: Any = type(self)
        values = _values(kind)(self)
        packed: bytes = msgpack.packb(values, unicode_errors="surrogatepass")
        return _VERSION_BYTE + packed

    @classmethod
    def unpack(cls, blob: bytes) -> Self:
        """Unpack what `pack` returned; raises `OtherVersion`, or `ConfigurationError` for anything else."""
        if blob[:1] != _VERSION_BYTE:
            raise OtherVersion(
                f"a message of wire version {blob[:1]!r}, this process speaks {_VERSION_BYTE!r}: "
                "run the same version of wsgi-timeout in web processes and workers"
            )
        try:
            values = msgpack.unpackb(
                memoryview(blob)[1:], unicode_errors="surrogatepass", strict_map_key=False
            )
            message = cls(*values)
        except Exception as error:  # msgpack raises many kinds for junk
            raise ConfigurationError(f"a {cls.__name__} that cannot be read: {error!r}") from error
        kind: Any = cls
        if not all(map(isinstance, _values(kind)(message), _kinds(kind))):
            raise ConfigurationError(f"a {cls.__name__} that cannot be read: {_misfit(message)}")
        return message


@cache
def _values(kind: Any) -> Callable[[_Message], tuple[Any, ...]]:
    """Return what returns the values of a message's fields."""
    names: tuple[str, ...] = kind.__slots__
    return attrgetter(*names)


@cache
def _kinds(kind: Any) -> tuple[Any, ...]:
    """Return the types of a message's fields."""
    return tuple(_KINDS[annotation] for annotation in kind.__annotations__.values())


def _misfit(message: _Message) -> str:
    """Say which field has a value of another type."""
    for name, annotation in message.__annotations__.items():
        if not isinstance(getattr(message, name), _KINDS[annotation]):
            return f"its {name} is no {annotation}"
    return ""


@dataclass(frozen=True, slots=True)
class CallRequest(_Message):
    """One HTTP request, as a worker needs it."""

    #: The part of the WSGI environ that can be sent.
    environ: dict[str, Any]
    #: The whole request body; None: it is in the stream `wt:in:<id>`.
    body: bytes | None
    #: Which WSGI app of the target: empty for the target itself, `INNER_ENTRY` for the one behind its front.
    entry: str
    #: Seconds that the handler may run.
    timeout: float
    #: See the settings of the same names; bytes, bytes, bytes, seconds, seconds.
    inline_body: int
    buffer: int
    max_result: int
    unread_timeout: float
    result_ttl: float
    #: Seconds for which read chunks of a stream are kept, for a client that reconnects; 0: not at all.
    resume_window: float = 0.0
    #: Seconds for which a stream that may have no end continues without a reader.
    reader_timeout: float = 8.0
    #: Whether the chunks of the request body are sealed: see `seals`.
    sealed_body: bool = False


@dataclass(frozen=True, slots=True)
class FunctionRequest(_Message):
    """One call of a stub's function, as a worker needs it."""

    #: The function's name in its stub, for logs; the name that is run is signed with the arguments.
    function: str
    #: Signed arguments; None: they are in the chunks of `wt:args:<id>`.
    arguments: bytes | None
    #: Seconds that the function may run.
    timeout: float
    #: How many more runs follow an exception, and the seconds before the first of them.
    retries: int
    retry_backoff: float
    #: See the settings of the same names; bytes, bytes, seconds.
    inline_body: int
    max_payload: int
    result_ttl: float


@dataclass(frozen=True, slots=True)
class ResponseHead(_Message):
    """Status and headers of a response, in the app's order and case."""

    status: str
    headers: list[tuple[str, str]]

    @classmethod
    def unpack(cls, blob: bytes) -> Self:
        head = super(ResponseHead, cls).unpack(blob)
        # msgpack has no tuples; WSGI wants exactly list[tuple[str, str]].
        try:
            return cls(head.status, [(str(name), str(value)) for name, value in head.headers])
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"headers that cannot be read: {error!r}") from error
