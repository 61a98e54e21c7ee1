"""Seals: with `WSGI_TIMEOUT_SECRET` set, queued requests carry an HMAC, and workers run no others.

Otherwise whoever can write to Redis could send requests to the app past the web server, for instance with a
`REMOTE_USER` of their choice. The HMAC (RFC 2104) covers the request, the call's id and the name, so it fits
no other call and no other app. A request body in chunks has one at the end of each chunk, which covers its
number too; a sealed empty chunk says that the body is whole.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator

from wsgi_timeout.errors import ConfigurationError, UploadBroken
from wsgi_timeout.secret import MADE_BY_SERVE
from wsgi_timeout.settings import SECRET_VARIABLE
from wsgi_timeout.store.packing import Buffer
from wsgi_timeout.store.streams import CHUNK

#: The field of a worker's description that holds the fingerprint of its secret.
FINGERPRINT = "secret"
#: Bytes of a seal.
_SIZE = hashlib.sha256().digest_size


def seal(packed: bytes, call_id: str, name: str) -> bytes:
    """Return the seal of a packed request; empty if no secret is set."""
    return _mac(b"request", call_id.encode(), name.encode(), packed)


def check(mac: bytes, packed: bytes, call_id: str, name: str) -> None:
    """Check the seal of a packed request; if no secret is set, any request passes.

    Raises:
        ConfigurationError: the seal is missing, or does not fit.
    """
    wanted = seal(packed, call_id, name)
    if wanted and not hmac.compare_digest(wanted, mac):
        raise ConfigurationError(
            f"the request of call {call_id} is not sealed with this {SECRET_VARIABLE}, and was not run: set "
            "the same secret in web processes and workers, and look who else writes to this Redis"
        )


def are_set() -> bool:
    """Return whether requests are sealed here: a secret is set."""
    return bool(_mac())


def sealed_size(size: int) -> int:
    """Return how many bytes of Redis a request body of `size` bytes needs: with seals, if a secret is set."""
    # Of each chunk, of a smaller last one, and of the empty one, which counts as two.
    return size + (size // CHUNK + 3) * _SIZE if are_set() else size


def seal_chunks(chunks: Iterable[Buffer], call_id: str, name: str) -> Iterator[bytes]:
    """Yield the chunks of a whole request body, each with its seal, and a sealed empty one after the last."""
    number = 0
    for number, chunk in enumerate(chunks, 1):
        yield b"".join((chunk, _chunk_seal(chunk, number - 1, call_id, name)))
    yield _chunk_seal(b"", number, call_id, name)


class SealedChunks:
    """Opens the chunks of one request body, from its first on."""

    def __init__(self, call_id: str, name: str) -> None:
        self._call_id = call_id
        self._name = name
        self._number = 0
        #: The empty chunk at the end was opened.
        self.whole = False

    def open(self, sealed: bytes) -> bytes:
        """Return the next chunk without its seal; raises `UploadBroken` if the seal does not fit."""
        chunk, mac = sealed[:-_SIZE], sealed[-_SIZE:]
        wanted = _chunk_seal(chunk, self._number, self._call_id, self._name)
        if wanted and not hmac.compare_digest(wanted, mac):
            raise UploadBroken(
                f"chunk {self._number} of the request body of call {self._call_id} is not sealed with this "
                f"{SECRET_VARIABLE}: look who else writes to this Redis"
            )
        self._number += 1
        self.whole = not chunk
        return chunk


def _chunk_seal(chunk: Buffer, number: int, call_id: str, name: str) -> bytes:
    return _mac(b"chunk", call_id.encode(), name.encode(), str(number).encode(), chunk)


def fingerprint() -> str:
    """Return a digest that tells secrets apart without revealing them; empty if no secret is set."""
    return _mac(b"fingerprint").hex()[:16]


def _mac(*parts: Buffer) -> bytes:
    secret = os.environ.get(SECRET_VARIABLE, "")
    # A secret that `serve` has made seals nothing: web processes started beside it do not have it.
    if not secret or secret.startswith(MADE_BY_SERVE):
        return b""
    return hmac.digest(secret.encode(), b"wsgi-timeout\0" + b"\0".join(parts), hashlib.sha256)
