"""Claims of idempotency keys: which call a key stands for."""

from __future__ import annotations

from dataclasses import dataclass

from wsgi_timeout.store import keys
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.record import text


@dataclass(frozen=True, slots=True)
class Claimed:
    """The call that a key stands for."""

    call_id: str
    token: str
    #: Of its request's body; None: that is still coming in, empty: its handler did not want all of it.
    body: bytes | None


class Claims:
    """The claims of one name."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def take(self, key: bytes, call_id: str, token: str) -> Claimed | None:
        """Claim a key for a call; return the call that has it already, None if it is this one's now.

        It lives for `UPLOAD_TTL` until `seal`, and is to be kept meanwhile: see `UploadKeeper`.
        """
        claim = keys.claim(self._calls.name, key.hex())
        found = self._calls.scripts.run("claim", [claim], [call_id, token, keys.UPLOAD_TTL])
        return Claimed(text(found[0]), text(found[1]), found[2]) if found else None

    def seal(self, key: bytes, body: bytes, ttl: float) -> None:
        """Note the digest of the request's body; the claim lives for `ttl` seconds from now on."""
        claim = keys.claim(self._calls.name, key.hex())
        pipe = self._calls.redis.pipeline()
        pipe.hset(claim, "body", body)
        pipe.expire(claim, max(1, int(ttl)))
        pipe.execute()

    def release(self, key: bytes) -> None:
        """Give a key back: its call was not accepted, or its result is gone."""
        self._calls.redis.unlink(keys.claim(self._calls.name, key.hex()))
