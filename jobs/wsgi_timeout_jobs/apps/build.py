"""Building the WSGI app of a marked function: what it returns, or a Flask app around an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any

from wsgi_timeout.errors import ConfigurationError, NotFound
from wsgi_timeout.http import answers
from wsgi_timeout.http.mounts import Mounts
from wsgi_timeout.integrations.endpoints import WebFunction
from wsgi_timeout.needs import need
from wsgi_timeout_jobs.apps.asgi import AsgiBridge


def build(web: WebFunction[Any, Any]) -> Callable[..., Iterable[bytes]]:
    """Return the WSGI app of a web function; raises `ConfigurationError` if it returns none."""
    if web.kind == "endpoint":
        return _endpoint(web)
    app = web.function()
    if not callable(app):
        raise ConfigurationError(f"{web.function.__name__}() returned {app!r}, which is no app")
    return AsgiBridge(app) if web.kind == "asgi" else app


class ByPath:
    """A stub's web functions by path, for requests that were accepted before a worker had described them."""

    def __init__(self, apps: Mapping[str, Callable[..., Iterable[bytes]]], mounts: Mounts) -> None:
        self._apps = apps
        self._mounts = mounts

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            label, _, below = self._mounts.find(environ)
        except NotFound as error:
            return answers.problem(start_response, error, str(error))
        return self._apps[label](below, start_response)


def _endpoint(web: WebFunction[Any, Any]) -> Callable[..., Iterable[bytes]]:
    # Only endpoints need pydantic 2: an app without them may use any version.
    need("pydantic", "web_endpoint", "endpoints")
    if version("pydantic").startswith(("0.", "1.")):
        raise ConfigurationError(
            f"web_endpoint needs pydantic 2, and {version('pydantic')} is installed: upgrade it, or make a "
            "@wsgi_app() of this function"
        )
    from wsgi_timeout_jobs.apps.endpoint import endpoint_app  # noqa: PLC0415

    return endpoint_app(web)
