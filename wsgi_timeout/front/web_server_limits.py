"""How long the web server lets one request block, and the settings that it shares with the app."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from wsgi_timeout.front.web_server import gunicorn_worker
from wsgi_timeout.settings import Settings

log = logging.getLogger("wsgi_timeout")

#: Where a server ends a request after its timeout: seconds of it that are left for everything but the wait
#: (`worker_wait`, the request's body, the answer).
_MARGIN_SECONDS = 10.0
#: uWSGI's default: seconds after which its HTTP router gives up a request that is silent.
_UWSGI_HTTP_TIMEOUT = 60.0
#: The largest value that TCP_USER_TIMEOUT takes, 24 days.
_LONGEST_SILENCE_MS = 2**31 - 1


class _Served:
    """The settings that the server of this process shares with the app."""

    #: Those of the first front that was made here; None: none was made yet.
    settings: Settings | None = None


def serve_with(settings: Settings) -> None:
    """Make these the settings of this process's server, unless it has some already."""
    _Served.settings = _Served.settings or settings


def served_settings() -> Settings:
    """Return the server's settings: those of the front that it has loaded, else the environment's."""
    return _Served.settings or Settings.load()


class _Limit(NamedTuple):
    """After how long a server ends a request, which part of it does, and which option to change."""

    seconds: float
    culprit: str
    remedy: str


def wait_limit(wait_seconds: float) -> float:
    """Return how many seconds a request may wait here; log a line if that is less than `wait_seconds`."""
    limit = _sync_worker() or _uwsgi()
    if limit is None:
        return float("inf")
    seconds = max(limit.seconds - _MARGIN_SECONDS, limit.seconds / 2)
    if wait_seconds > seconds:
        log.warning(
            "%s ends a request after %g s: requests wait %g s instead of wait_seconds=%g. %s",
            limit.culprit,
            limit.seconds,
            seconds,
            wait_seconds,
            limit.remedy,
        )
    return seconds


def limit_silence(environ: Mapping[str, Any], seconds: float) -> None:
    """Have Linux close the connection of a client that has read nothing for so many seconds.

    Otherwise a client that stops reading keeps a thread for ever. A client that reads slowly is not cut off.
    """
    sock = environ.get("gunicorn.socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if sock is not None and option is not None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, option, min(int(seconds * 1000), _LONGEST_SILENCE_MS))
        except OSError:
            return  # a unix socket has no such option


def _sync_worker() -> _Limit | None:
    """Return the limit of gunicorn's sync worker, None under its other workers, which have none.

    gunicorn kills its default worker after `timeout`, with the request that it runs.
    """
    sync = sys.modules.get("gunicorn.workers.sync")
    worker = gunicorn_worker(sync.SyncWorker) if sync else None
    if worker is None or not worker.cfg.timeout:
        return None
    return _Limit(
        worker.cfg.timeout,
        "gunicorn's sync worker, which serves one request at a time,",
        "Run gunicorn with -c python:wsgi_timeout.gunicorn_conf, or with "
        "-k wsgi_timeout.gunicorn_worker.ThreadWorker --threads 416",
    )


def _uwsgi() -> _Limit | None:
    """Return the shorter of uWSGI's limits: `harakiri` kills a worker, `http-timeout` ends a request."""
    options = getattr(sys.modules.get("uwsgi"), "opt", {})
    limits = {}
    if "harakiri" in options:
        limits["harakiri"] = float(options["harakiri"])
    if "http" in options or "https" in options:
        limits["http-timeout"] = float(options.get("http-timeout", _UWSGI_HTTP_TIMEOUT))
    if not limits:
        return None
    name, seconds = min(limits.items(), key=lambda item: item[1])
    return _Limit(seconds, f"uWSGI's --{name}", f"Run uWSGI with a longer --{name}")
