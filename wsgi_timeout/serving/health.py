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
#: The path at which this process answers Prometheus, if it does.
SCRAPED: set[str] = set()


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


def is_routine(environ: dict[str, Any], status: str) -> bool:
    """Return whether a request is left out of the access log: a health check, or a scrape that succeeded.

    So is the 503 of `ready` before a drain, which several balancers ask for each second of every deploy:
    it is no failure that anybody should be alarmed by.
    """
    path = environ.get("PATH_INFO")
    return path in {LIVE, READY} or (path in SCRAPED and status.startswith("200"))
