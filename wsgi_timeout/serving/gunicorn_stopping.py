"""What our gunicorn workers share: how they load the app, and how they stop."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

from wsgi_timeout.serving.gunicorn_settings import QuickSettings
from wsgi_timeout.serving.health import with_health
from wsgi_timeout.serving.metrics_url import with_metrics
from wsgi_timeout.serving.unframed import reset_when_cut
from wsgi_timeout.settings import Settings
from wsgi_timeout.watching import listener

#: Seconds between two heartbeats for gunicorn, whose `timeout` is at least four times as long.
_NOTICE_SECONDS = 0.25


class StopsGracefully:
    """A mixin for gunicorn's workers: told to stop, it becomes unready, and drains after `drain_delay`."""

    wsgi: Any
    cfg: Any
    _alive: bool
    _leave_at: float | None = None
    _next_notice = 0.0

    @property
    def alive(self) -> bool:
        """Whether this process goes on; gunicorn sets it to False for nearly every reason to stop."""
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        self._alive = value
        if not value:
            self.begin_drain()

    def begin_drain(self) -> None:
        """Have waiting requests be answered now."""
        listener.drain()

    def load_wsgi(self) -> None:
        """Load the app, with our own URLs in front of it."""
        app = with_metrics(self._load)
        self.wsgi = with_health(reset_when_cut(app), lambda: self.is_ready)
        self.cfg = QuickSettings(self.cfg)

    def _load(self) -> Any:
        super().load_wsgi()  # type: ignore[misc]
        return self.wsgi

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
