"""Writes progress reports to Redis, a few times a second at most, however often the handler reports."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.record import Attempt
from wsgi_timeout.store.redis_errors import ANY
from wsgi_timeout_jobs.process.interrupts import Interrupts

log = logging.getLogger("wsgi_timeout.worker")

#: Seconds between two writes.
INTERVAL_SECONDS = 0.25


class Reports:
    """The progress of one attempt: the first report is written at once, the last always, others when due."""

    def __init__(self, attempts: Attempts, interrupts: Interrupts, attempt: Attempt) -> None:
        self._attempts = attempts
        self._interrupts = interrupts
        self._attempt = attempt
        self._lock = threading.Lock()
        self._latest: dict[str, Any] | None = None
        self._due = 0.0
        self._timer: threading.Timer | None = None
        self._closed = False

    def __call__(self, report: dict[str, Any]) -> None:
        # Without the lock, so that a report from a tight loop costs little more than reading the clock.
        self._latest = report
        if time.monotonic() < self._due and self._timer is not None:
            return
        with self._interrupts.shield():
            with self._lock:
                wait = self._due - time.monotonic()
                if self._closed or (wait > 0 and self._timer is not None):
                    return
                if wait > 0:
                    self._later(wait)
                    return
                self._due = time.monotonic() + INTERVAL_SECONDS
            self._write()

    def close(self) -> None:
        """Write the last report if it was not written; later reports are dropped."""
        with self._interrupts.shield():
            with self._lock:
                self._closed = True
                waiting, self._timer = self._timer, None
            if waiting is not None:
                waiting.cancel()
                self._write()

    def _later(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._on_time)
        self._timer.daemon = True
        self._timer.start()

    def _on_time(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._timer = None
            self._due = time.monotonic() + INTERVAL_SECONDS
        self._write()

    def _write(self) -> None:
        report = self._latest
        if report is None:
            return
        try:
            self._attempts.progress(self._attempt, report)
        except ANY as error:
            # A report that cannot be written must not end the handler.
            log.debug("%s: progress was not recorded: %s", self._attempt.call_id, error)
