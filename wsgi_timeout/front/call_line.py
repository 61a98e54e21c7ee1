"""The line that a web process logs of a call, once a client has its response, or will not get it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from wsgi_timeout.compat import StrEnum
from wsgi_timeout.http.asked import Asked
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.http.printable import printable, without_token
from wsgi_timeout.store.record import Outcome, Snapshot, failure_of, now_ms

log = logging.getLogger("wsgi_timeout")

#: The status of a client that has left, as `http.answers.client_gone` says it.
_LEFT_STATUS = 499
#: Outcomes of calls that have a response of the app.
_RESPONSES = frozenset({None, Outcome.DONE, Outcome.BROKEN})


class Sent(StrEnum):
    """How much of a call's response one client got."""

    WHOLE = "whole"
    #: It broke off: in the worker, or because the client left.
    PART = "part"
    #: An error of ours: the call has no response.
    ERROR = "error"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class CallLine:
    """What is logged of one call; exactly once, unless its client breaks off and comes back."""

    pending: Pending
    #: None: the client left before anything was known of the call.
    snapshot: Snapshot | None
    #: Of the request that is answered.
    method: str

    def write(self, sent: Sent, *, broke: bool = False, ended_ms: int = 0) -> None:
        """Log the line.

        Args:
            sent: what the client got.
            broke: the response itself broke off: it is not the client that left.
            ended_ms: when the attempt ended whose response was streamed; 0: not known.
        """
        if not log.isEnabledFor(logging.INFO) or self._is_told:
            return
        fields = self._fields(sent, broke=broke, ended_ms=ended_ms)
        log.info("%s", _text(fields), extra={"fields": fields})

    @property
    def _is_told(self) -> bool:
        """Whether this is no delivery, or not the first one."""
        of_call = self._method_of_call
        again = self.snapshot is not None and self.snapshot.delivered_ms is not None
        return again or (self.method == "HEAD" and of_call != "HEAD")

    @property
    def _method_of_call(self) -> str:
        # After a 303 the request that gets the answer to a POST is a GET.
        asked = self.pending.origin.asked
        return Asked.unpack(asked).method if asked else self.method

    def _fields(self, sent: Sent, *, broke: bool, ended_ms: int) -> dict[str, Any]:
        pending, found = self.pending, self.snapshot
        path = without_token(printable(pending.path))
        fields: dict[str, Any] = {
            "call": pending.call_id,
            "what": f"{self._method_of_call} {path}",
            "route": pending.origin.route,
            "outcome": (found and found.outcome) or _outcome_of(sent, broke=broke),
            "status": _status(found),
            "hops": pending.hop,
            "sent": sent,
        }
        if found is not None:
            fields |= {"attempt": found.attempt, **_seconds(found, ended_ms)}
        if pending.origin.request_id:
            fields["request_id"] = pending.origin.request_id
        return fields


def _outcome_of(sent: Sent, *, broke: bool) -> str:
    """Return how a call ended of which that was not known when its response began."""
    if broke:
        return Outcome.BROKEN
    return Outcome.DONE if sent is Sent.WHOLE else "left"


def _status(found: Snapshot | None) -> int:
    if found is None:
        return _LEFT_STATUS
    if found.outcome in _RESPONSES and found.head is not None:
        return int(found.head.status[:3])
    return int(failure_of(found.outcome or Outcome.UNREAD).status[:3])


def _seconds(found: Snapshot, ended_ms: int) -> dict[str, float]:
    times = replace(found.times, ended=found.times.ended or ended_ms)
    known = {
        "queue_seconds": times.queue_seconds,
        "run_seconds": times.run_seconds,
        "total_seconds": max(0, now_ms() - times.created) / 1000 if times.created else None,
    }
    return {name: round(seconds, 3) for name, seconds in known.items() if seconds is not None}


def _text(fields: dict[str, Any]) -> str:
    """Return the line for people; it begins as that of the worker."""
    attempt = f" attempt {fields['attempt']}" if "attempt" in fields else ""
    parts = [f"{fields['call']} {fields['what']}{attempt} {fields['outcome']} {fields['status']}"]
    parts += [
        f"{verb} {fields[name]:.3f} s"
        for name, verb in (("queue_seconds", "queued"), ("run_seconds", "ran"))
        if name in fields
    ]
    total = f" and {fields['total_seconds']:.3f} s" if "total_seconds" in fields else ""
    parts += [f"sent {fields['sent']} after {fields['hops']} hops{total}", f"route {fields['route']}"]
    if "request_id" in fields:
        parts.append(f"request {fields['request_id']}")
    return ", ".join(parts)
