"""Notes of navigations that wait for calls of which their browsers know nothing yet.

The note of a request is found by whoever sends the same one again, in any web process.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsgi_timeout.store import keys
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.record import text

#: Seconds for which the call of a client that has left is kept for who comes back.
KEPT_SECONDS = 10.0
#: Seconds that a note outlives what it is for: its web process deletes it, unless that has died.
_SPARE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Left:
    """A call whose client has left, and that is now the one's who has asked."""

    call_id: str
    token: str
    #: What its request asked for, packed.
    asked: bytes


class FirstWaitNotes:
    """The notes of one name, as one web process writes them."""

    def __init__(self, calls: Calls, inbox: str) -> None:
        self._run = calls.scripts.run
        self._name = calls.name
        self._inbox = inbox

    def key(self, digest: str) -> str:
        """Return the key of a request's note, by the request's digest."""
        return keys.first_wait(self._name, digest)

    def begin(self, note: str, call_id: str, token: str, seconds: float, *, left: bool = False) -> str:
        """Note a call that is waited for, for `seconds` at most.

        Returns the id of another call that was left in its place, of which nobody else knows; else "".
        """
        ttl = _ttl(seconds)
        other = self._run("first_begin", [note], [call_id, token, self._inbox, ttl, int(left)])
        return text(other) if other else ""

    def take(self, note: str, word: str, within: float, seconds: float) -> Left | float | None:
        """Return the call that was left within so many seconds, which is now this request's.

        `word` names the request, which may ask again, and then waits for `seconds` at most. Returns the
        seconds since the call began while its client is there, and None if there is no call.
        """
        words = [self._inbox, word, int(1000 * within), _ttl(seconds)]
        found = self._run("first_take", [note], words)
        if not found:
            return None
        if len(found) == 1:
            return int(found[0]) / 1000
        return Left(text(found[0]), text(found[1]), found[2])

    def leave(self, note: str, call_id: str) -> None:
        """Note that the client of a call has left."""
        self._run("first_leave", [note], [call_id, self._inbox, _ttl(0)])

    def end(self, note: str, call_id: str) -> None:
        """Forget the note of a call that was answered."""
        self._run("first_end", [note], [call_id, self._inbox, ""])

    def forsake(self, note: str, call_id: str) -> bool:
        """Forget a call that nobody has come back for in time; returns whether that is so."""
        words = [call_id, self._inbox, int(1000 * KEPT_SECONDS)]
        return bool(self._run("first_end", [note], words))


def _ttl(seconds: float) -> int:
    return int(seconds + KEPT_SECONDS + _SPARE_SECONDS)
