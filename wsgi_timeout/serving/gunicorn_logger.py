"""gunicorn's logger, also for our lines, and without our tokens."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger

from wsgi_timeout.http.urls import TOKEN


class Logger(GunicornLogger):
    """gunicorn's logger for our lines too, without our tokens: whoever has one can read the result."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        ours = logging.getLogger("wsgi_timeout")
        ours.handlers, ours.propagate = self.error_log.handlers, False
        ours.setLevel(self.error_log.level)
        for logger in (self.error_log, self.access_log):
            if not any(isinstance(item, _Redaction) for item in logger.filters):
                logger.addFilter(_Redaction())

    def atoms(self, resp: Any, req: Any, environ: Any, request_time: Any) -> dict[str, Any]:
        atoms: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        # For its own error answers gunicorn makes an environ without a path.
        atoms["U"] = atoms["U"] or getattr(req, "path", "-")
        return atoms


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        redacted = TOKEN.sub(r"\1.-", message)
        if redacted is not message:
            record.msg, record.args = redacted, ()
        return True
