"""The health check URLs, live and ready, which the web process answers itself."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

from wsgi_timeout.serving.probe import PROBE
from wsgi_timeout.serving.probe import answer as probe
from wsgi_timeout.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_PREFIX = "/__wsgi_timeout/"
LIVE = _PREFIX + "live"
READY = _PREFIX + "ready"
#: Paths that are asked so often that they are not logged.
UNLOGGED = {LIVE, READY}
#: Seconds between two heartbeats for gunicorn, whose `timeout` is at least four times as long.
_NOTICE_SECONDS = 0.25


def with_health(app: WSGIApplication, is_ready: Callable[[], bool]) -> WSGIApplication:
    """Return `app` with the two URLs in front: both answer 200, `ready` 503 once the process is to stop."""

    def outer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == PROBE:
            return probe(environ, start_response)
        if path not in {LIVE, READY}:
            return app(environ, start_response)
        good = path == LIVE or is_ready()
        body = b"ok\n" if good else b"leaving\n"
        headers = [
            ("Content-Type", "text/plain"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        start_response("200 OK" if good else "503 Service Unavailable", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return outer


def is_health_check(environ: dict[str, Any]) -> bool:
    """Return whether a request is a health check or a scrape of metrics, which are not logged."""
    return environ.get("PATH_INFO") in UNLOGGED


class LeavesInTwoSteps:
    """A mixin for gunicorn's workers: told to stop, it becomes unready, and drains after `drain_delay`."""

    alive: bool
    _leave_at: float | None = None
    _next_notice = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether new requests should come here."""
        return self._leave_at is None and self.alive

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take SIGTERM: at a reload, a stop or a new master."""
        delay = Settings.load().drain_delay
        if self._leave_at is None and delay:
            self._leave_at = time.monotonic() + delay
        elif self._leave_at is None:
            super().handle_exit(sig, frame)  # type: ignore[misc]

    def notify(self) -> None:
        """Tell the arbiter that this process lives, at least each second."""
        now = time.monotonic()
        if now >= self._next_notice:  # gunicorn calls this many times for each request
            self._next_notice = now + _NOTICE_SECONDS
            super().notify()  # type: ignore[misc]
        if self._leave_at is not None and self.alive and now >= self._leave_at:
            super().handle_exit(signal.SIGTERM, None)  # type: ignore[misc]
