"""`wsgi_blueprint("legacy:app")`: any WSGI app under a prefix of a host Flask app, run as calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from flask import Blueprint, Flask, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter
from werkzeug.test import run_wsgi_app
from werkzeug.wsgi import ClosingIterator

from wsgi_timeout import target as targets
from wsgi_timeout.connection import redis_url
from wsgi_timeout.current import in_worker
from wsgi_timeout.front import Front
from wsgi_timeout.routes import Routes
from wsgi_timeout.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_CONVERTER = "wsgi_timeout_rest"


def wsgi_blueprint(
    target: str,
    *,
    name: str | None = None,
    only: Iterable[str] = (),
    except_: Iterable[str] = (),
    routes: Mapping[str, Mapping[str, Any]] | None = None,
    eager: bool | None = None,
    **settings: Any,
) -> Blueprint:
    """Return a blueprint that runs requests below its `url_prefix` as calls of `target`.

    The host's `before_request`, `after_request` and session guard a first request and its result URL
    alike. `target` is an import string, imported by workers only (`wsgi-timeout worker TARGET`), but
    where handlers run in place: with `only` or `except_`, in a worker, and when `eager` or the host's
    `testing` is set. `name` is the queue's and the blueprint's, by default the target's top module.
    Raises `ConfigurationError`.
    """
    mounted = _Mounted(
        target, name or targets.name_of(target), tuple(only), tuple(except_), routes or {}, settings
    )
    mounted.eager = eager
    mounted.routes(Settings.load(**settings))  # complains where it is written
    blueprint = Blueprint(mounted.name, __name__)
    blueprint.record(mounted.register)
    return blueprint


class _Mounted:
    """One wrapped app in one host."""

    def __init__(
        self,
        target: str,
        name: str,
        only: tuple[str, ...],
        except_: tuple[str, ...],
        route_settings: Mapping[str, Mapping[str, Any]],
        settings: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.eager: bool | None = None
        self._target = target
        self._only = only
        self._except = except_
        self._route_settings = route_settings
        self._settings = settings
        self._front: Front | None = None

    def routes(self, settings: Settings) -> Routes:
        return Routes(settings, only=self._only, except_=self._except, routes=self._route_settings)

    def register(self, state: BlueprintSetupState) -> None:
        app = state.app
        prefix = (state.url_prefix or "").rstrip("/")
        endpoint = f"{state.name_prefix}.{state.name}.call".lstrip(".")
        app.url_map.converters[_CONVERTER] = _Rest
        # Flask's own add_url_rule would refuse unknown methods and answer OPTIONS by itself.
        rule = app.url_rule_class(f"{prefix}<{_CONVERTER}:rest>", endpoint=endpoint, methods=None)
        app.url_map.add(rule)
        depth = prefix.count("/")

        def call(**_values: str) -> Response:
            environ = _below(request.environ, depth)
            return _as_response(self._app_here(), environ)

        app.view_functions[endpoint] = call

    def _app_here(self) -> WSGIApplication:
        host: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
        if in_worker() or (host.testing if self.eager is None else self.eager):
            return self._loaded
        if self._front is None:
            routes = self.routes(Settings.load(host.config, **self._settings))
            app = None if routes.capture_all else self._loaded
            self._front = Front(redis_url(), self.name, routes, target=self._target, app=app)
        return self._front

    @cached_property
    def _loaded(self) -> WSGIApplication:
        app: WSGIApplication = targets.load(self._target)
        return app


class _Rest(BaseConverter):
    """The rest of a path, slashes and all, also none at all."""

    regex = r"(?:/.*)?"
    part_isolating = False


class _Passed(Response):
    """A response that goes out as it came, but for what the host's `after_request` changes."""

    default_mimetype = None

    def __call__(self, _environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response(self.status, self.headers.to_wsgi_list())
        return ClosingIterator(cast("Iterable[bytes]", self.response), self.close)


def _as_response(app: WSGIApplication, environ: dict[str, Any]) -> Response:
    iterable, status, headers = run_wsgi_app(app, environ, buffered=False)
    return _Passed(iterable, status, headers, direct_passthrough=True)


def _below(environ: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Return the environ as an app mounted `depth` segments below sees it (PEP 3333: SCRIPT_NAME)."""
    parts = environ.get("PATH_INFO", "").split("/")
    below = dict(environ)
    below["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + "/".join(parts[: depth + 1])
    rest = parts[depth + 1 :]
    below["PATH_INFO"] = "/" + "/".join(rest) if rest else ""
    return below
