"""gunicorn's gevent worker that drains at a stop: `-k wsgi_timeout.gunicorn_gevent.GeventWorker`."""

from __future__ import annotations

from gunicorn.workers import ggevent

from wsgi_timeout import waiting


class GeventWorker(ggevent.GeventWorker):
    """Holds thousands of waiting requests, a greenlet each, and answers all of them when told to stop."""

    @property
    def alive(self) -> bool:
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        self._alive = value
        if not value:
            waiting.drain()
