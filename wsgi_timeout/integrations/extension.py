"""`RequestTimeouts(app)`: a Flask app that runs its own requests as calls."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask

from wsgi_timeout.current import IN_PLACE_KEY, in_worker
from wsgi_timeout.front.front import Front
from wsgi_timeout.http.routes import Routes, listed
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.connection import redis_url
from wsgi_timeout.store.messages import PLACE

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

EXTENSION = "wsgi_timeout"


class RequestTimeouts:
    """Puts the front before `app.wsgi_app`; workers run `wsgi-timeout worker MODULE:APP`.

    Middleware that is put around the app later stands outside, and runs in the web process only. In
    a worker, and while `app.testing` is set, requests run in place.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        name: str | None = None,
        only: Iterable[str] = (),
        except_: Iterable[str] = (),
        routes: Mapping[str, Mapping[str, Any]] | None = None,
        eager: bool | None = None,
        **settings: Any,
    ) -> None:
        """Take what runs as calls and how; with `app`, call `init_app` too.

        `name` is the queue's, by default the app's top module. `only`, `except_` and `routes` are
        patterns of method and path (see `wsgi_timeout.routes`). `eager` runs handlers in place, by
        default when `app.testing` is set. `settings` are those of `Settings`, and stand before
        `app.config["WSGI_TIMEOUT_..."]`. Raises `ConfigurationError`.
        """
        self._name = name
        self._only = listed("only", only)
        self._except = listed("except_", except_)
        self._routes = routes or {}
        self._eager = eager
        self._settings = settings
        self._routes_for(Settings.load(**settings))  # complains where it is written
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put the front before `app.wsgi_app`; its connections are made with the first request."""
        place = app.extensions[EXTENSION] = Place(self, app)
        if not in_worker():
            app.wsgi_app = place  # type: ignore[method-assign]

    def is_eager(self, app: Flask) -> bool:
        return app.testing if self._eager is None else self._eager

    def name(self, app: Flask) -> str:
        return self._name or name_of(app)

    def front(self, app: Flask, inner: WSGIApplication) -> Front:
        routes = self._routes_for(Settings.load(app.config, **self._settings))
        return Front(redis_url(), self.name(app), routes, entry=PLACE, app=inner)

    def _routes_for(self, settings: Settings) -> Routes:
        return Routes(settings, only=self._only, except_=self._except, routes=self._routes)


class Place:
    """Where the front of one app stands; built with the first request, when the configuration is complete."""

    def __init__(self, extension: RequestTimeouts, app: Flask) -> None:
        #: What workers run: what stands outside has run in the web process.
        self.inner: WSGIApplication = app.wsgi_app
        self._extension = extension
        self._app = app
        self._lock = threading.Lock()
        self._front: Front | None = None

    @property
    def name(self) -> str:
        """The name of the queue, `wt:<name>`."""
        return self._extension.name(self._app)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if self._front is None:
            if IN_PLACE_KEY in environ or self._extension.is_eager(self._app):
                return self.inner(environ, start_response)
            with self._lock:
                if self._front is None:
                    self._front = self._extension.front(self._app, self.inner)
        return self._front(environ, start_response)


def name_of(app: Flask) -> str:
    """Return the name of a Flask app: its top module, or the script's name where that is `__main__`."""
    top = app.import_name.partition(".")[0]
    if top == "__main__":
        script = getattr(sys.modules["__main__"], "__file__", None)
        return Path(script).stem if script else "app"
    return top
