"""Frozen values that cross between processes: msgpack behind a version byte, never pickle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from wsgi_timeout.compat import Self
from wsgi_timeout.errors import ConfigurationError

#: The wire format. Both halves of a deployment must speak the same one.
WIRE_VERSION = 1

#: The entry of a call that a front inside the app has captured: middleware outside it ran already.
PLACE = "place"

#: What stands in Redis may come from anybody: each value is of the type that its annotation names.
_KINDS: dict[str, Any] = {
    "bytes | None": (bytes, type(None)),
    "dict[str, Any]": dict,
    "float": (int, float),
    "int": int,
    "list[tuple[str, str]]": list,
    "str": str,
}

_VERSION_BYTE = bytes([WIRE_VERSION])


class OtherVersion(ConfigurationError):
    """A message that a process of another version of wsgi-timeout can read."""


@dataclass(frozen=True, slots=True)
class _Message:
    def pack(self) -> bytes:
        # WSGI strings hold latin-1; a server that lets surrogates through must not make us fail.
        names: tuple[str, ...] = self.__slots__
        values = [getattr(self, name) for name in names]
        packed: bytes = msgpack.packb(values, unicode_errors="surrogatepass")
        return _VERSION_BYTE + packed

    @classmethod
    def unpack(cls, blob: bytes) -> Self:
        """Read what `pack` wrote; raises `OtherVersion`, or `ConfigurationError` for junk."""
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
        except Exception as error:  # whatever msgpack makes of it
            raise ConfigurationError(f"a {cls.__name__} that cannot be read: {error!r}") from error
        for name, annotation in cls.__annotations__.items():
            if not isinstance(getattr(message, name), _KINDS[annotation]):
                raise ConfigurationError(
                    f"a {cls.__name__} that cannot be read: its {name} is no {annotation}"
                )
        return message


@dataclass(frozen=True, slots=True)
class CallRequest(_Message):
    """One HTTP request, as a worker needs it."""

    #: The WSGI environ's transportable part.
    environ: dict[str, Any]
    #: The whole request body; None: it is in the stream `wt:in:<id>`.
    body: bytes | None
    #: Which WSGI app of the target: empty for the target itself, `PLACE` for where its own front stands.
    entry: str
    #: Seconds that the handler may run.
    timeout: float
    #: See the settings of these names; bytes, bytes, bytes, seconds, seconds.
    inline_body: int
    buffer: int
    max_result: int
    unread_timeout: float
    result_ttl: float
    #: Seconds that what was read of a stream is kept for a client that comes back; 0: it need not be.
    resume_window: float = 0.0
    #: Seconds that a response which may have no end goes on without its reader.
    reader_timeout: float = 8.0


@dataclass(frozen=True, slots=True)
class FunctionRequest(_Message):
    """One call of a stub's function, as a worker needs it."""

    #: The function's name in its stub, for the log; the one that counts is signed with its arguments.
    function: str
    #: Signed arguments; None: they are in the chunks of `wt:args:<id>`.
    arguments: bytes | None
    #: Seconds that the function may run.
    timeout: float
    #: Runs after the first one that an exception allows, and seconds before the first of them.
    retries: int
    retry_backoff: float
    #: See the settings of these names; bytes, bytes, seconds.
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
