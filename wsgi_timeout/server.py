"""The server that this process runs under: how long it lets one request block."""

from __future__ import annotations

import logging
import sys
from types import FrameType
from typing import Any

log = logging.getLogger("wsgi_timeout")

#: Seconds left for all that is not waiting, when a server kills a request after its timeout.
_MARGIN_SECONDS = 5.0


def wait_limit(wait_seconds: float) -> float:
    """Return how many seconds a request may wait here; logs a line if that is less than it should.

    gunicorn's sync worker, its default, serves one request at a time, and is killed with it after
    `timeout`: the client would get a 500. Its other workers only watch the process.
    """
    worker = _gunicorn_worker()
    if worker is None or type(worker).__module__ != "gunicorn.workers.sync" or not worker.cfg.timeout:
        return float("inf")
    timeout = float(worker.cfg.timeout)
    limit = max(timeout - _MARGIN_SECONDS, timeout / 2)
    if wait_seconds > limit:
        log.warning(
            "gunicorn's sync worker kills a request after %g s (--timeout): requests wait %g s instead of "
            "wait_seconds=%g, and one at a time. Run gunicorn with -c python:wsgi_timeout.gunicorn_conf, "
            "or -k wsgi_timeout.gunicorn_worker.ThreadWorker --threads 216",
            timeout,
            limit,
            wait_seconds,
        )
    return limit


def _gunicorn_worker() -> Any:
    """Return the gunicorn worker that called us, None under another server."""
    base = sys.modules.get("gunicorn.workers.base")
    if base is None:
        return None
    # gunicorn hands its worker to nobody.
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, base.Worker):
            return candidate
        frame = frame.f_back
    return None
