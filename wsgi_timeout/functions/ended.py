"""How a spawned call ended, and what that returns or raises for its caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wsgi_timeout.compat import Self, add_note
from wsgi_timeout.errors import OutputExpiredError, RemoteError, WsgiTimeoutError
from wsgi_timeout.functions import payload
from wsgi_timeout.store.record import Outcome, failure_of


def expired(call_id: str) -> OutputExpiredError:
    """Return the error for a call that is unknown, or whose result has expired."""
    return OutputExpiredError(f"there is no call {call_id!r}, or its result has expired")


@dataclass(frozen=True, slots=True)
class EndedCall:
    """The record of an ended call."""

    call_id: str
    outcome: Outcome
    detail: str
    #: The packed result or exception; None: there is none, or it has expired.
    body: bytes | None
    attempt: int

    @classmethod
    def carried(cls, call_id: str, message: bytes) -> Self | None:
        """Unpack a small result that came with a wake, see `finish.lua`; None if it cannot be read."""
        try:
            stamps, _, body = message.split(b" ", 2)
            return cls(call_id, Outcome.DONE, "", body, int(stamps.partition(b":")[0]))
        except ValueError:
            return None

    def result(self) -> Any:
        """Return what the function returned; raises what `FunctionCall.get` raises for an ended call."""
        if self.outcome not in {Outcome.DONE, Outcome.RAISED}:
            raise failure_of(self.outcome)(f"call {self.call_id}: {self.detail}")
        if self.body is None:
            raise expired(self.call_id) if self.outcome is Outcome.DONE else RemoteError(self.detail)
        value = self._unpacked(self.body)
        if self.outcome is Outcome.DONE:
            return value
        raise _raisable(value, self.detail)

    def _unpacked(self, body: bytes) -> Any:
        try:
            return payload.unpack(body, self.call_id, "result")
        except WsgiTimeoutError:
            raise
        except Exception as error:
            # The class of the value cannot be imported here, or raises when it is unpickled.
            what = f"the result of call {self.call_id} cannot be read here: {error!r}"
            raise RemoteError(f"{what}\n{self.detail}".strip()) from error


def _raisable(error: Any, traceback: str) -> BaseException:
    if not isinstance(error, BaseException):
        return RemoteError(traceback)
    # A TimeoutError would look like "still running"; a SystemExit would end the caller's process.
    if isinstance(error, TimeoutError) or not isinstance(error, Exception):
        wrapped = RemoteError(f"the function raised {type(error).__name__}: {error}\n{traceback}")
        wrapped.__cause__ = error
        return wrapped
    add_note(error, f"In the worker:\n{traceback}")
    return error
