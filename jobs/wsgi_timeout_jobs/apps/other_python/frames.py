"""The frames between a worker and its app process: a letter, a length, a payload.

    worker says                                    app process says
    C  a call: its environ, and a small body       R  the app is loaded, by which Python
    I  a piece of the request body, empty: its end F  it is not, and why
    B  the request body broke off, and why         N  how much of the request body is wanted
    X  end it: no more chunks, close the iterable  H  status and headers, with the first of what follows
                                                   K  the same and a first chunk, which is the whole body by
                                                      Content-Length: it ends and is closed without an X
                                                   W  a chunk that the app has written by write()
                                                   D  a chunk
                                                   L  a short list of chunks, which is all
                                                   E  the iterable is exhausted; whether it has a `close`
                                                   A  the app raised; whether there is something to close
                                                   Z  closed, and what `close` raised

A small call is one message there, the C, and two back: K, then E and Z at once.
`app_host.py` has the same on its side, without imports of ours.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import BinaryIO

_HEADER = struct.Struct("!cI")


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return a frame as it is sent."""
    return _HEADER.pack(kind, len(payload)) + payload


def read_frame(stream: BinaryIO) -> tuple[bytes, bytes] | None:
    """Return the next frame; None at the end of the stream."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    kind, size = _HEADER.unpack(header)
    payload = stream.read(size)
    return (kind, payload) if len(payload) == size else None


def pack(texts: Sequence[str]) -> bytes:
    """Return texts as one payload."""
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    lengths = struct.pack(f"!{1 + len(parts)}I", len(parts), *map(len, parts))
    return lengths + b"".join(parts)


def unpack(payload: bytes) -> list[bytes]:
    """Return the parts of a payload."""
    (count,) = struct.unpack_from("!I", payload)
    lengths = struct.unpack_from(f"!{count}I", payload, 4)
    at, parts = 4 + 4 * count, []
    for length in lengths:
        parts.append(payload[at : at + length])
        at += length
    return parts
