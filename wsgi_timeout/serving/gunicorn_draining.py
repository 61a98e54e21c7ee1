"""gunicorn's thread worker that drains: when it is told to stop, waiting requests are answered."""

from __future__ import annotations

import traceback
from typing import Any

from gunicorn.util import make_fail_app
from gunicorn.workers import gthread

from wsgi_timeout.reloading import Reloader
from wsgi_timeout.serving.gunicorn_stopping import StopsGracefully


class DrainingWorker(StopsGracefully, gthread.ThreadWorker):
    """gunicorn's own gthread, of any version, that answers every waiter when told to stop."""

    def is_parent_alive(self) -> bool:
        there: bool = super().is_parent_alive()
        if not there:
            # gunicorn leaves its loop, and after graceful_timeout would cut off requests that still wait.
            self.alive = False
        return there

    def _load(self) -> Any:
        if not self.cfg.reload:
            return super()._load()
        # gunicorn's own reloader misses edits before its first look; it starts this one instead.
        self.reloader = Reloader()
        try:
            self.wsgi = self.app.wsgi()
        except Exception as error:
            # By itself gunicorn survives a SyntaxError only.
            self.log.exception("the app cannot be loaded: waiting for an edit")
            self.wsgi = make_fail_app("".join(traceback.format_exception(error)))
        return self.wsgi
