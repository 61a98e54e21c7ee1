"""Notes, in Redis, of page loads that wait for a call whose URL their browser was not told yet.

A reload of the page finds the note of the earlier request, in any web process.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsgi_timeout.store import keys
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.record import Origin, text

#: Seconds for which a call is kept after its client disconnected, in case the person comes back.
KEPT_SECONDS = 10.0
#: The same for a download that a browser resumes: it says that it has failed, and offers to try again.
DOWNLOAD_KEPT_SECONDS = 600.0
#: Seconds added to a note's TTL, which matters only if its web process dies and cannot delete it.
_SPARE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Left:
    """A call whose client has disconnected, and which now belongs to the request that asked for it."""

    call_id: str
    token: str
    origin: Origin


class FirstWaitNotes:
    """The notes of one name, for one web process."""

    def __init__(self, calls: Calls, inbox: str) -> None:
        self._run = calls.scripts.run
        self._name = calls.name
        self._inbox = inbox

    def key(self, digest: str) -> str:
        """Return the key of a request's note, from the request's digest."""
        return keys.first_wait(self._name, digest)

    def begin(
        self,
        note: str,
        call_id: str,
        token: str,
        seconds: float,
        kept: float = KEPT_SECONDS,
        *,
        left: bool = False,
    ) -> str:
        """Write the note of a call for which a request waits, `seconds` at most, and `kept` after it left.

        Returns the id of an earlier call of the same request whose client has left, to be given up; else "".
        """
        ttl = _ttl(seconds + kept)
        other = self._run("first_begin", [note], [call_id, token, self._inbox, ttl, int(left)])
        return text(other) if other else ""

    def take(self, note: str, word: str, within: float, seconds: float) -> Left | float | None:
        """Take over the call of an earlier request whose client has left within the last `within` seconds.

        Args:
            note: the key of the note.
            word: a random word that names the request that asks, which may repeat this.
            within: how long ago the client may have left, in seconds.
            seconds: for how long this request will wait for the call.

        Returns:
            The call; or, while its client is connected, the seconds since it began; or None: there is none.
        """
        words = [self._inbox, word, int(1000 * within), _ttl(seconds + within)]
        found = self._run("first_take", [note], words)
        if not found:
            return None
        if len(found) == 1:
            return int(found[0]) / 1000
        return Left(text(found[0]), text(found[1]), Origin.read(found[2:]))

    def leave(self, note: str, call_id: str, kept: float = KEPT_SECONDS) -> None:
        """Record that the client of a call has disconnected; the call is kept for `kept` seconds."""
        self._run("first_leave", [note], [call_id, self._inbox, _ttl(kept)])

    def end(self, note: str, call_id: str) -> None:
        """Delete the note of a call that was answered."""
        self._run("first_end", [note], [call_id, self._inbox, ""])

    def expire(self, note: str, call_id: str, kept: float = KEPT_SECONDS) -> bool:
        """Delete the note of a call whose person has not come back in time; return whether that is so."""
        words = [call_id, self._inbox, int(1000 * kept)]
        return bool(self._run("first_end", [note], words))


def _ttl(seconds: float) -> int:
    return int(seconds + _SPARE_SECONDS)
