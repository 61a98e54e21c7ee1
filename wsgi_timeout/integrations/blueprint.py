"""`wsgi_blueprint("legacy:app")`: any WSGI app under a prefix of a host Flask app, run as calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flask import Blueprint, Flask, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter
from werkzeug.wsgi import ClosingIterator

from wsgi_timeout import target as targets
from wsgi_timeout.current import IN_PLACE_KEY, in_worker
from wsgi_timeout.http.routes import Routes, listed
from wsgi_timeout.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

    from wsgi_timeout.front.front import Front

_REST, _ALL = "wsgi_timeout_rest", "wsgi_timeout_all"
#: The key in the host's environ that holds the response until the request has ended.
_RESPONSE = "wsgi_timeout.response"


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

    `host.register_blueprint(wsgi_blueprint("legacy:app"), url_prefix="/legacy")`; workers run
    `wsgi-timeout worker legacy:app`. The host's `before_request`, `after_request` and session guard a
    first request and its result URL alike.

    Args:
        target: an import string: `module:app`, `module:factory()` or `file.py:app`. It is imported by
            workers only, but where handlers run in this process: with `only` or `except_`, in a worker,
            and with `eager` or the host's `testing`.
        name: the queue's and the blueprint's name, by default the target's top module.
        only: patterns of the requests that run as calls, as "/reports/*" or "POST /ocr"; all others are
            answered in the web process.
        except_: patterns of the requests that do not run as calls.
        routes: settings of single routes, by pattern: `{"POST /ocr": {"timeout": 7200}}`.
        eager: run handlers in this process; by default when the host's `testing` is set.
        settings: any of `Settings`; they stand before the host's `config["WSGI_TIMEOUT_..."]`, and that
            before the environment.

    Returns:
        A Flask blueprint, to be registered once or at several prefixes.

    Raises:
        ConfigurationError: a setting or a pattern that cannot work; the message says what to change.
        TargetError: the import string is malformed.
    """
    patterns = listed("only", only), listed("except_", except_)
    mounted = _Mounted(target, name or targets.name_of(target), *patterns, routes or {}, settings)
    mounted.eager = eager
    mounted.routes(Settings.load(**settings))  # complains where it is written
    blueprint = Blueprint(mounted.name, __name__)
    blueprint.record(mounted.register)
    blueprint.teardown_request(_close_unsent)
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
        self._lock = threading.Lock()
        self._front: Front | None = None

    def routes(self, settings: Settings) -> Routes:
        return Routes(settings, only=self._only, except_=self._except, routes=self._route_settings)

    def register(self, state: BlueprintSetupState) -> None:
        app = state.app
        prefix = (state.url_prefix or "").rstrip("/")
        endpoint = f"{state.name_prefix}.{state.name}.call".lstrip(".")
        app.url_map.converters.update({_REST: _Rest, _ALL: _All})
        pattern = f"{prefix}<{_REST}:rest>" if prefix else f"/<{_ALL}:rest>"
        for websocket in (False, True):
            # Flask's own add_url_rule would refuse unknown methods and answer OPTIONS by itself.
            rule = app.url_rule_class(
                pattern, endpoint=endpoint, methods=None, websocket=websocket, subdomain=state.subdomain
            )
            app.url_map.add(rule)
        depth = prefix.count("/")

        def call(**_values: str) -> Response:
            environ = _below(request.environ, depth)
            response = _as_response(self._app_here(environ), environ)
            request.environ[_RESPONSE] = response
            return response

        app.view_functions[endpoint] = call

    def _app_here(self, environ: dict[str, Any]) -> WSGIApplication:
        host: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
        if in_worker() or IN_PLACE_KEY in environ or (host.testing if self.eager is None else self.eager):
            environ[IN_PLACE_KEY] = True
            return self._loaded
        if self._front is None:
            with self._lock:
                if self._front is None:
                    self._front = self._new_front(host)
        return self._front

    def _new_front(self, host: Flask) -> Front:
        # Imported here, so that importing this module does not import redis-py.
        from wsgi_timeout.front.front import Front  # noqa: PLC0415
        from wsgi_timeout.store.connection import redis_url  # noqa: PLC0415

        routes = self.routes(Settings.load(host.config, **self._settings))
        app = None if routes.capture_all else self._loaded
        templates = [Path(host.root_path, host.template_folder or ""), targets.templates_of(self._target)]
        return Front(redis_url(), self.name, routes, target=self._target, app=app, templates=templates)

    @cached_property
    def _loaded(self) -> WSGIApplication:
        app: WSGIApplication = targets.load(self._target)
        return app


class _All(BaseConverter):
    """A whole path, slashes, line feeds and all."""

    regex = "(?s:.*)"
    part_isolating = False
    # The host's own routes come first.
    weight = 1000


class _Rest(_All):
    """What follows a prefix: a path, or nothing."""

    regex = "(?:/(?s:.*))?"


class _Passed(Response):
    """A response that is sent unchanged, except for what the host's `after_request` changes."""

    default_mimetype = None

    def __call__(self, _environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response(self.status, self.headers.to_wsgi_list())
        return ClosingIterator(cast("Iterable[bytes]", self.response), self.close)


class _Head:
    """The status and headers that an app has given to `start_response`."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        #: Blocks that the app has given to `write`.
        self.written: list[bytes] = []
        self._sent = False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        if exc_info:
            try:
                if self._sent or self.written:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # PEP 3333: no reference cycle through the traceback
        elif self.status:
            raise AssertionError("start_response was called a second time, without exc_info")
        self.status, self.headers = status, list(headers)
        return self.written.append

    def send(self) -> None:
        """Note that the first byte was sent: status and headers cannot change any more."""
        if not self.status:
            raise AssertionError("the app did not call start_response before its first byte or its end")
        self._sent = True


def _as_response(app: WSGIApplication, environ: dict[str, Any]) -> Response:
    head = _Head()
    iterable = app(environ, head.start_response)
    close: Callable[[], object] = getattr(iterable, "close", lambda: None)
    try:
        chunks = iter(iterable)
        # Until its first byte an app may give its status late, or replace it (PEP 3333).
        first = head.written or list(islice(filter(None, chunks), 1))
        head.send()
        response = _Passed(chain(first, chunks), head.status, head.headers, direct_passthrough=True)
    except BaseException:
        close()
        raise
    response.call_on_close(close)
    return response


def _close_unsent(error: BaseException | None) -> None:
    """Close the response of a request that ended with an error of the host's, which does not send it."""
    response = request.environ.pop(_RESPONSE, None)
    if response is not None and error is not None:
        response.close()


def _below(environ: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Return the environ as an app mounted `depth` segments below sees it (PEP 3333: SCRIPT_NAME)."""
    path = environ.get("PATH_INFO", "")
    # Flask's routing ignores repeated slashes before a prefix.
    parts = (path if depth == 0 else "/" + path.lstrip("/")).split("/")
    below = dict(environ)
    below["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + "/".join(parts[: depth + 1])
    rest = parts[depth + 1 :]
    below["PATH_INFO"] = "/" + "/".join(rest) if rest else ""
    return below
