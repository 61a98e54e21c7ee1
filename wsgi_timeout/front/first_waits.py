"""Page loads that wait for their first answer: a person who reloads meanwhile joins the running call.

Until the first redirect a browser has no cookie of ours. A request with the same URL, headers and address
as one whose client has just disconnected is taken for the same person. A request whose client is still
connected is never joined: it may be somebody else's, and its response may set a session cookie.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from wsgi_timeout.front.wait import ClientGone
from wsgi_timeout.http.navigation import is_reload
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.retrying import until
from wsgi_timeout.store.redis_errors import UNAVAILABLE
from wsgi_timeout.watching.waiter import Waiter

#: Seconds for which a call is kept after its client disconnected, in case the person comes back.
_KEPT_SECONDS = 10.0
#: Seconds in which the old connection is seen to close after a reload: the browser closes it and sends the
#: new request at the same time.
_LOOK_SECONDS = 0.5
_PAUSE_SECONDS = 0.02
#: Seconds that a first request must have waited before a second one may be the same person's. A second one
#: that says it is a reload may be so at once; any other request looks once and then runs by itself, so that
#: people who open the same page at the same time are not delayed.
_PATIENCE_SECONDS = 0.5
#: Headers that differ between two requests of one person, set by browsers and proxies.
_VARYING = frozenset(
    {
        *("HTTP_CACHE_CONTROL", "HTTP_PRAGMA", "HTTP_REFERER", "HTTP_CONNECTION", "HTTP_PRIORITY"),
        *("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_SEC_FETCH_USER", "HTTP_SEC_FETCH_SITE"),
        *("HTTP_X_REQUEST_ID", "HTTP_X_CORRELATION_ID", "HTTP_TRACEPARENT", "HTTP_TRACESTATE"),
        *("HTTP_X_AMZN_TRACE_ID", "HTTP_CF_RAY", "HTTP_X_CLOUD_TRACE_CONTEXT", "HTTP_X_REQUEST_START"),
    }
)


@dataclass(slots=True)
class FirstWait:
    """A request that waits for its first answer."""

    key: bytes
    pending: Pending
    #: None: a second request has joined the call, and does not wait yet.
    waiter: Waiter | None
    #: Called with the call's id to end the call.
    abandon: Callable[[str], None]
    #: When its client was seen to have disconnected, on the monotonic clock; 0: it is connected.
    left: float = 0.0
    #: Another request waits for its call now.
    joined: bool = False
    began: float = field(default_factory=time.monotonic)


class FirstWaits:
    """The first waits of one web process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[bytes, FirstWait] = {}
        self._sweeper: threading.Timer | None = None

    @contextmanager
    def waiting(
        self,
        environ: Mapping[str, Any],
        pending: Pending,
        waiter: Waiter,
        abandon: Callable[[str], None],
    ) -> Iterator[FirstWait]:
        """Register a request as waiting, until the end of a `with` block.

        When its client disconnects, the call is kept for a while in case the person comes back; if nobody
        does, `abandon` is called with the call's id.
        """
        first = FirstWait(_key(environ, pending.clean_url), pending, waiter, abandon)
        with self._lock:
            before = self._waits.get(first.key)
            self._waits[first.key] = first
        if before is not None and before.left and not before.joined:
            _give_up(before)
        try:
            yield first
        except ClientGone:
            with self._lock:
                first.left = first.left or time.monotonic()
                self._sweep_later()
            raise
        finally:
            with self._lock:
                if not first.left and self._waits.get(first.key) is first:
                    del self._waits[first.key]

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = threading.Timer(_KEPT_SECONDS, self._sweep)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep(self) -> None:
        """Give up the calls whose clients have disconnected and not come back."""
        oldest = time.monotonic() - _KEPT_SECONDS
        with self._lock:
            old = [first for first in self._waits.values() if 0 < first.left <= oldest]
            for first in old:
                del self._waits[first.key]
            self._sweeper = None
            if any(first.left for first in self._waits.values()):
                self._sweep_later()
        for first in old:
            if not first.joined:
                _give_up(first)

    @contextmanager
    def join(self, environ: Mapping[str, Any], clean_url: str) -> Iterator[Pending | None]:
        """Yield the call that this person's earlier request for the same URL has left behind, or None."""
        key = _key(environ, clean_url)
        joined = until(
            lambda: self._take(key),
            pause=_PAUSE_SECONDS,
            seconds=_LOOK_SECONDS,
            stopped=lambda: not self._may_leave(key, environ),
        )
        try:
            yield joined.pending if joined else None
        finally:
            with self._lock:
                if joined and self._waits.get(key) is joined:
                    del self._waits[key]

    def _take(self, key: bytes) -> FirstWait | None:
        with self._lock:
            first = self._waits.get(key)
            if first is None:
                return None
            if not first.left and first.waiter is not None and first.waiter.has_left():
                first.left = time.monotonic()
            if not first.left:
                return None
            first.joined = True
            # Takes its place until the new request waits: an impatient person may reload once more.
            self._waits[key] = joined = FirstWait(key, first.pending, None, first.abandon)
            return joined

    def _may_leave(self, key: bytes, environ: Mapping[str, Any]) -> bool:
        """Return whether the waiting request may be this person's own, whose connection is about to close."""
        with self._lock:
            first = self._waits.get(key)
        if first is None:
            return False
        return is_reload(environ) or time.monotonic() - first.began > _PATIENCE_SECONDS


def _give_up(first: FirstWait) -> None:
    with suppress(*UNAVAILABLE):  # its result is then kept for `result_ttl`
        first.abandon(first.pending.call_id)


def _key(environ: Mapping[str, Any], clean_url: str) -> bytes:
    parts = [clean_url, environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_USER", "")]
    parts += [
        f"{name}:{value}"
        for name, value in sorted(environ.items())
        if name.startswith("HTTP_") and name not in _VARYING
    ]
    return sha256("\n".join(parts).encode("utf-8", "surrogatepass")).digest()
