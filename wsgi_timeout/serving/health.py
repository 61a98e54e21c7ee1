"""The health check URLs, live and ready, which the web process answers itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from wsgi_timeout.serving.probe import PROBE
from wsgi_timeout.serving.probe import answer as probe

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

_PREFIX = "/__wsgi_timeout/"
LIVE = _PREFIX + "live"
READY = _PREFIX + "ready"
#: Paths that are asked so often that they are not logged.
UNLOGGED = {LIVE, READY}


def with_health(app: WSGIApplication, is_ready: Callable[[], bool]) -> WSGIApplication:
    """Return `app` with the two URLs in front: both answer 200, `ready` 503 once the process is to stop."""

    def outer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == PROBE:
            return probe(environ, start_response)
        if path not in {LIVE, READY}:
            return app(environ, start_response)
        good = path == LIVE or is_ready()
        body = b"ok\n" if good else b"leaving\n"
        headers = [
            ("Content-Type", "text/plain"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        start_response("200 OK" if good else "503 Service Unavailable", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return outer


def is_health_check(environ: dict[str, Any]) -> bool:
    """Return whether a request is a health check or a scrape of metrics, which are not logged."""
    return environ.get("PATH_INFO") in UNLOGGED
