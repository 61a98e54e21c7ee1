"""The server that this process runs under: how long it lets one request block."""

from __future__ import annotations

import logging
import math
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple

from wsgi_timeout.settings import Settings

log = logging.getLogger("wsgi_timeout")

#: Seconds left, where a server ends a request after its timeout, for all that is not the wait: `worker_wait`,
#: the request's body, the answer.
_MARGIN_SECONDS = 10.0
#: Seconds after which uWSGI's HTTP router gives a silent request up, unless it is told otherwise.
_UWSGI_HTTP_TIMEOUT = 60.0
#: The most that the system's option takes, 24 days.
_LONGEST_SILENCE_MS = 2**31 - 1


class _Served:
    """What this process serves; the server that runs it goes by the same settings."""

    #: Of the first front that was made here; None: none was yet.
    settings: Settings | None = None


def serve_with(settings: Settings) -> None:
    """Have the server of this process go by these settings, unless it goes by others already."""
    _Served.settings = _Served.settings or settings


def served_settings() -> Settings:
    """Return the settings that the server goes by: those of what it has loaded, else the environment's."""
    return _Served.settings or Settings.load()


class _Limit(NamedTuple):
    """When a server ends a request, what of it does so, and what to change."""

    seconds: float
    culprit: str
    remedy: str


def wait_limit(wait_seconds: float) -> float:
    """Return how many seconds a request may wait here; logs a line if that is less than it should."""
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


def thread_limit() -> float:
    """Return how many requests gunicorn's thread worker handles at a time here; infinity elsewhere."""
    gthread = sys.modules.get("gunicorn.workers.gthread")
    worker = _gunicorn_worker(gthread.ThreadWorker) if gthread else None
    return worker.cfg.threads if worker else math.inf


def limit_silence(environ: Mapping[str, Any], seconds: float) -> None:
    """Have the system break the connection of a client that takes nothing for so long (Linux).

    Else a client that stops reading keeps a thread for ever. One that reads slowly is not cut.
    """
    sock = environ.get("gunicorn.socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if sock is not None and option is not None:
        with suppress(OSError):  # a unix socket has no such option
            sock.setsockopt(socket.IPPROTO_TCP, option, min(int(seconds * 1000), _LONGEST_SILENCE_MS))


def _sync_worker() -> _Limit | None:
    """Return the limit of gunicorn's sync worker; the other ones have none for a request.

    The sync worker, gunicorn's default, is killed with its request after `timeout`: the client would
    get a 500.
    """
    sync = sys.modules.get("gunicorn.workers.sync")
    worker = _gunicorn_worker(sync.SyncWorker) if sync else None
    if worker is None or not worker.cfg.timeout:
        return None
    return _Limit(
        worker.cfg.timeout,
        "gunicorn's sync worker, which serves one request at a time,",
        "Run gunicorn with -c python:wsgi_timeout.gunicorn_conf, or with "
        "-k wsgi_timeout.gunicorn_worker.ThreadWorker --threads 416",
    )


def _gunicorn_worker(kind: type) -> Any:
    """Return the gunicorn worker of this kind that called us, None if there is none."""
    # gunicorn hands its worker to nobody.
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, kind):
            return candidate
        frame = frame.f_back
    return None


def _uwsgi() -> _Limit | None:
    """Return the shortest of uWSGI's limits: by one it kills its worker, by the other its router gives up."""
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
