"""gunicorn's thread worker that drains: when it is told to stop, waiting requests are answered."""

from __future__ import annotations

import traceback
from typing import Any

from gunicorn.util import make_fail_app
from gunicorn.workers import gthread

from wsgi_timeout.reloading import Reloader
from wsgi_timeout.serving.health import LeavesInTwoSteps, with_health
from wsgi_timeout.serving.metrics_url import with_metrics
from wsgi_timeout.serving.unframed import reset_when_cut
from wsgi_timeout.watching import listener


class DrainingWorker(LeavesInTwoSteps, gthread.ThreadWorker):
    """gunicorn's own gthread, of any version, that answers every waiter when told to stop."""

    @property
    def alive(self) -> bool:
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        # gunicorn sets it to False for every reason to stop (signals, max_requests, a reload) but one.
        self._alive = value
        if not value:
            listener.drain()

    def is_parent_alive(self) -> bool:
        there: bool = super().is_parent_alive()
        if not there:
            # gunicorn leaves its loop, and after graceful_timeout would cut off requests that still wait.
            self.alive = False
        return there

    def load_wsgi(self) -> None:
        app = with_metrics(self._load)
        self.wsgi: Any = with_health(reset_when_cut(app), lambda: self.is_ready)

    def _load(self) -> Any:
        if not self.cfg.reload:
            super().load_wsgi()
            return self.wsgi
        # gunicorn's own reloader misses edits before its first look; it starts this one instead.
        self.reloader = Reloader()
        try:
            self.wsgi = self.app.wsgi()
        except Exception as error:
            # By itself gunicorn survives a SyntaxError only.
            self.log.exception("the app cannot be loaded: waiting for an edit")
            self.wsgi = make_fail_app("".join(traceback.format_exception(error)))
        return self.wsgi
