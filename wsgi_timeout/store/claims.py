"""Which call an idempotency key stands for, as Redis keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from wsgi_timeout.store import keys
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.record import text


@dataclass(frozen=True, slots=True)
class Claimed:
    """The call that has claimed a key."""

    call_id: str
    token: str
    #: Digest of the request's body; None: it is still arriving; empty: the handler did not read all of it.
    body: bytes | None


class Claims:
    """The idempotency keys of one name."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def take(self, key: bytes, call_id: str, token: str) -> Claimed | None:
        """Claim a key for a call; return None, or the other call that has claimed it before.

        Until `seal` the claim expires after `UPLOAD_TTL`, unless `UploadKeeper` renews it.
        """
        claim = keys.claim(self._calls.name, key.hex())
        found = self._calls.scripts.run("claim", [claim], [call_id, token, keys.UPLOAD_TTL])
        return Claimed(text(found[0]), text(found[1]), found[2]) if found else None

    def seal(self, key: bytes, body: bytes, ttl: float, *, durable: bool = False) -> None:
        """Record the digest of the request's body; the claim expires after `ttl` seconds.

        `durable`: return when that is on disk.
        """
        scripts = self._calls.synced if durable else self._calls.scripts
        scripts.run("seal", [keys.claim(self._calls.name, key.hex())], [body, max(1, int(ttl))])

    def release(self, key: bytes) -> None:
        """Release a key: its call was not accepted, or its result has expired."""
        self._calls.redis.unlink(keys.claim(self._calls.name, key.hex()))
