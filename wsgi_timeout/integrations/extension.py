"""`RequestTimeouts(app)`: a Flask app that runs its own requests as calls."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask

from wsgi_timeout.current import IN_PLACE_KEY, in_worker
from wsgi_timeout.http.routes import Routes, listed
from wsgi_timeout.settings import NAME_VARIABLE, Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

    from wsgi_timeout.front.front import Front

EXTENSION = "wsgi_timeout"


class RequestTimeouts:
    """A Flask app's own requests run as calls: it puts the front before `app.wsgi_app`.

    `RequestTimeouts(app)`, or `RequestTimeouts().init_app(app)`; workers run
    `wsgi-timeout worker MODULE:APP`.

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

        Args:
            app: a Flask app; without one, call `init_app` later.
            name: the queue's name, `wt:<name>`, by default the app's top module.
            only: patterns of the requests that run as calls, as "/reports/*" or "POST /ocr"; all others
                are answered in the web process.
            except_: patterns of the requests that do not run as calls.
            routes: settings of single routes, by pattern: `{"POST /ocr": {"timeout": 7200}}`.
            eager: run handlers in this process; by default when `app.testing` is set.
            settings: any of `Settings`; they stand before `app.config["WSGI_TIMEOUT_..."]`, and that
                before the environment.

        Raises:
            ConfigurationError: a setting or a pattern that cannot work; the message says what to change.
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
        """Put the front before `app.wsgi_app`; its connections are made with the first request.

        Args:
            app: a Flask app, as often as there are apps; its configuration is read with the first request.
        """
        installed = app.extensions[EXTENSION] = InstalledFront(
            app,
            name=self._name or os.environ.get(NAME_VARIABLE) or name_of(app),
            eager=self._eager,
            configured=bool(self._only or self._except or self._routes or self._settings),
            make_front=partial(self._new_front, app),
        )
        if not in_worker():
            app.wsgi_app = installed  # type: ignore[method-assign]

    def _new_front(self, app: Flask, name: str, inner: WSGIApplication) -> Front:
        # Imported here, so that importing this module does not import redis-py.
        from wsgi_timeout.front.front import Front  # noqa: PLC0415
        from wsgi_timeout.store.connection import redis_url  # noqa: PLC0415
        from wsgi_timeout.store.messages import INNER_ENTRY  # noqa: PLC0415

        routes = self._routes_for(Settings.load(app.config, **self._settings))
        templates = [Path(app.root_path, app.template_folder or "")]
        return Front(redis_url(), name, routes, entry=INNER_ENTRY, app=inner, templates=templates)

    def _routes_for(self, settings: Settings) -> Routes:
        return Routes(settings, only=self._only, except_=self._except, routes=self._routes)


class InstalledFront:
    """Stands in place of one app's `wsgi_app`; makes the front with the first request, as configured then."""

    def __init__(
        self,
        app: Flask,
        *,
        name: str,
        eager: bool | None,
        configured: bool,
        make_front: Callable[[str, WSGIApplication], Front],
    ) -> None:
        #: The app's own `wsgi_app`, which workers run; middleware around the front runs in the web process.
        self.inner: WSGIApplication = app.wsgi_app
        #: The name of the queue, `wt:<name>`.
        self.name = name
        #: Whether the code of the app says which requests run as calls, or how.
        self.configured = configured
        self._app = app
        self._eager = eager
        self._make_front = make_front
        self._lock = threading.Lock()
        self._front: Front | None = None

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if self._front is None:
            if IN_PLACE_KEY in environ or (self._app.testing if self._eager is None else self._eager):
                return self.inner(environ, start_response)
            with self._lock:
                if self._front is None:
                    self._front = self._make_front(self.name, self.inner)
        return self._front(environ, start_response)


def name_of(app: Flask) -> str:
    """Return the name of a Flask app: its top module, or the script's name where that is `__main__`."""
    top = app.import_name.partition(".")[0]
    if top == "__main__":
        script = getattr(sys.modules["__main__"], "__file__", None)
        return Path(script).stem if script else "app"
    return top
