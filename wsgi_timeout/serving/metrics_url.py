"""The metrics of a web site at a path of its own, answered by the web process itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from wsgi_timeout import metrics
from wsgi_timeout.serving.health import SCRAPED
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.connection import redis_url
from wsgi_timeout.watching.exposition import Exposition

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication


def with_metrics(load: Callable[[], WSGIApplication]) -> WSGIApplication:
    """Load an app, and put the metrics before it if `metrics_path` is set."""
    path = Settings.load().metrics_path
    if not path:
        return load()
    metrics.start()
    app = load()
    exposition = cache(lambda: Exposition(redis_url()))
    SCRAPED.add(path)

    def outer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != path:
            return app(environ, start_response)
        content_type, body = exposition().answer()
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        start_response("200 OK", [*headers, ("Cache-Control", "no-store")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return outer
