"""Page loads that wait for their first answer: a person who reloads meanwhile joins the running call.

Until the first redirect a browser has no cookie of ours. A request with the same URL, headers and address
as one whose client has just disconnected is taken for the same person; nothing that the app sees tells
them apart. A request whose client is still connected is never joined: it may be somebody else's, and its
response may set a session cookie. So a call has one client at any time, and its response goes to one.

A page that is answered fast pays nothing: a note is made of the requests that go on waiting, and it is looked
for by the command that queues a call.
"""

from __future__ import annotations

import heapq
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from wsgi_timeout.front.call_line import CallLine, Sent
from wsgi_timeout.front.places import Seat
from wsgi_timeout.front.process import Runtime
from wsgi_timeout.front.wait import ClientGone, Ready, wait
from wsgi_timeout.http.environ import CONDITIONS, capture
from wsgi_timeout.http.navigation import is_reload, is_resumed_download
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.store.first_waits import DOWNLOAD_KEPT_SECONDS, KEPT_SECONDS, FirstWaitNotes, Left
from wsgi_timeout.store.redis_errors import UNAVAILABLE
from wsgi_timeout.store.time_limit import within

#: Seconds that a first request waits before a note is made: nobody reloads earlier.
_NOTED_SECONDS = 0.05
#: Seconds after a disconnect in which a request joins that neither is a reload nor has a cookie or a log-in:
#: later it may well be another person's.
_ANONYMOUS_SECONDS = 2.0
#: Seconds in which the old connection is seen to close after a reload: the browser closes it and sends the
#: new request at the same time.
_LOOK_SECONDS = 1.0
#: Any other request waits for that as long as the first one has waited by then, or so many seconds: people
#: who open the same page at the same time are hardly delayed.
_GLANCE_SECONDS = 0.2
_PAUSES_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.1)
#: What differs between two requests of one person, set by browsers, proxies and servers.
_VARYING = CONDITIONS | {
    *("REMOTE_PORT", "HTTP_CACHE_CONTROL", "HTTP_PRAGMA", "HTTP_CONNECTION", "HTTP_PRIORITY"),
    *("HTTP_SEC_FETCH_USER", "HTTP_SEC_FETCH_SITE", "SERVER_NAME", "SERVER_PORT", "SERVER_SOFTWARE"),
    *("HTTP_X_REQUEST_ID", "HTTP_X_CORRELATION_ID", "HTTP_TRACEPARENT", "HTTP_TRACESTATE"),
    *("HTTP_X_AMZN_TRACE_ID", "HTTP_CF_RAY", "HTTP_X_CLOUD_TRACE_CONTEXT", "HTTP_X_REQUEST_START"),
}
_PERSONAL = ("HTTP_COOKIE", "HTTP_AUTHORIZATION", "REMOTE_USER")


@dataclass(frozen=True, order=True, slots=True)
class _Left:
    """A call whose client has left."""

    #: When it is given up, on the monotonic clock.
    due: float
    note: str
    pending: Pending = field(compare=False)
    kept_seconds: float = field(compare=False)


class FirstWaits:
    """The first waits of one web process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._notes = FirstWaitNotes(runtime.calls, runtime.listener.inbox)
        self._lock = threading.Lock()
        #: A heap of calls whose clients have left.
        self._left: list[_Left] = []
        self._sweeper: threading.Timer | None = None

    def note(self, environ: Mapping[str, Any], clean_url: str) -> str:
        """Return the key of a request's note: by all that the app sees of it and its sender."""
        varying = _VARYING - CONDITIONS if is_resumed_download(environ) else _VARYING
        seen = {key: value for key, value in capture(environ).items() if key not in varying}
        if _local(seen.get("HTTP_REFERER", "")) == clean_url:
            del seen["HTTP_REFERER"]  # a script's reload; F5 sends what was sent before
        parts = [clean_url, *(f"{key}:{value}" for key, value in sorted(seen.items()))]
        return self._notes.key(sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32])

    def wait(self, environ: Mapping[str, Any], pending: Pending, seat: Seat, seconds: float) -> Ready | None:
        """Wait for a call of which nobody knows a URL yet; when its client leaves, keep it for a while.

        Raises `ClientGone`, `CallUnknown`.
        """
        deadline = time.monotonic() + seconds
        noted = taken = pending.hop > 0
        try:
            if not taken:
                ready = wait(self._runtime, seat, min(seconds, _NOTED_SECONDS), look_first=False)
                if ready is not None or seconds <= _NOTED_SECONDS:
                    return ready
                noted = self._begin(environ, pending, deadline - time.monotonic())
            ready = wait(self._runtime, seat, deadline - time.monotonic(), look_first=taken)
        except ClientGone:
            self.leave(environ, pending, noted=noted)
            raise
        if noted:
            with suppress(*UNAVAILABLE), within(0.0):
                self._notes.end(self.note(environ, pending.clean_url), pending.call_id)
        return ready

    def take(self, environ: Mapping[str, Any], clean_url: str, seconds: float) -> Left | None:
        """Return a call that the same person has sent by the same request and left; None if there is none.

        The caller waits for it, `seconds` at most.
        """
        note, reload = self.note(environ, clean_url), is_reload(environ) or is_resumed_download(environ)
        known = reload or any(key in environ for key in _PERSONAL)
        kept = _kept_seconds(environ) if known else _ANONYMOUS_SECONDS
        began, word = time.monotonic(), secrets.token_urlsafe(8)
        patience = _LOOK_SECONDS
        for pause in (*_PAUSES_SECONDS, *(_PAUSES_SECONDS[-1:] * 100)):
            try:
                with self._runtime.turn():
                    found = self._notes.take(note, word, kept, seconds)
            except UNAVAILABLE:
                return None
            if not isinstance(found, float):
                return found
            if not reload:
                patience = min(patience, max(found, _GLANCE_SECONDS))
            if time.monotonic() - began > patience:
                return None
            time.sleep(pause)
        return None

    def _begin(
        self, environ: Mapping[str, Any], pending: Pending, seconds: float, *, left: bool = False
    ) -> bool:
        """Note a call; returns whether that was possible."""
        note, kept = self.note(environ, pending.clean_url), _kept_seconds(environ)
        try:
            with self._runtime.turn():
                other = self._notes.begin(note, pending.call_id, pending.token, seconds, kept, left=left)
                if other:
                    self._runtime.calls.abandon(other)
        except UNAVAILABLE:
            return False
        return True

    def leave(self, environ: Mapping[str, Any], pending: Pending, *, noted: bool) -> None:
        """Keep a call whose client has left, or was sent away; `noted`: there is a note of it."""
        note, kept = self.note(environ, pending.clean_url), _kept_seconds(environ)
        if noted:
            with suppress(*UNAVAILABLE):
                self._notes.leave(note, pending.call_id, kept)
        else:
            self._begin(environ, pending, 0.0, left=True)
        with self._lock:
            heapq.heappush(self._left, _Left(time.monotonic() + kept, note, pending, kept))
            if self._sweeper is not None and self._left[0].pending is pending:
                self._sweeper.cancel()
                self._sweeper = None
            self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweeper is None and self._left:
            seconds = max(0.0, self._left[0].due - time.monotonic())
            self._sweeper = threading.Timer(seconds, self._sweep)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep(self) -> None:
        """Give up the calls whose clients have disconnected and not come back."""
        due = []
        with self._lock:
            self._sweeper = None
            while self._left and self._left[0].due <= time.monotonic():
                due.append(heapq.heappop(self._left))
            self._sweep_later()
        for left in due:
            with suppress(*UNAVAILABLE):  # it is kept for `result_ttl` then
                if self._notes.expire(left.note, left.pending.call_id, left.kept_seconds):
                    self._runtime.calls.abandon(left.pending.call_id)
                    CallLine(left.pending, None, "GET").write(Sent.NOTHING)


def _kept_seconds(environ: Mapping[str, Any]) -> float:
    return DOWNLOAD_KEPT_SECONDS if is_resumed_download(environ) else KEPT_SECONDS


def _local(url: str) -> str:
    """Return the path and query of a URL, as browsers write them; "" for what is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
