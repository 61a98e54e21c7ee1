"""gunicorn's logger, also for our lines, without our tokens, and with statsd where that is set."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.instrument.statsd import Statsd

from wsgi_timeout import log_format
from wsgi_timeout.current import CALL_ID_KEY
from wsgi_timeout.errors import HandlerRaised
from wsgi_timeout.http.printable import printable, without_token
from wsgi_timeout.serving.health import is_routine
from wsgi_timeout.settings import Settings

#: For access log formats, as `%(...)s`: the id of the call that a request became, or that its URL names.
CALL_ID_ATOM = "{wsgi_timeout.call_id}e"
_CALL_ID = re.compile(r"__wsgi_timeout_(?:call|status)=(fc-[\w-]{8,64})")


class Logger(GunicornLogger):
    """gunicorn's logger, used for our lines too; without tokens and clients' control characters."""

    def __new__(cls, cfg: Any) -> Any:
        # gunicorn uses its statsd logger only if its own logger is configured.
        return super().__new__(_StatsdLogger if cls is Logger and cfg.statsd_host else cls)

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        ours = logging.getLogger("wsgi_timeout")
        ours.handlers, ours.propagate = self.error_log.handlers, False
        ours.setLevel(log_format.level(self.error_log.level))
        # Ours too: a path may hold a whole result URL, escaped.
        for logger in (self.error_log, self.access_log, ours):
            if not any(isinstance(item, _Redaction) for item in logger.filters):
                logger.addFilter(_Redaction())
            if Settings.load().log_format == "json":
                for handler in logger.handlers:
                    handler.setFormatter(log_format.JsonFormatter())

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log a request, except balancers' health checks and Prometheus' scrapes."""
        if not is_routine(environ, str(resp.status)):
            super().access(resp, req, environ, request_time)

    def atoms(self, resp: Any, req: Any, environ: Any, request_time: Any) -> dict[str, Any]:
        """Return the atoms of a line, without tokens: formatters read them from the record too."""
        atoms: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        # For its own error answers gunicorn uses an environ without a path.
        atoms["U"] = atoms["U"] or getattr(req, "path", "-")
        # The id is in the query of a hop, or in the `Location` of a redirect.
        seen = f"{environ.get('QUERY_STRING', '')} {dict(getattr(resp, 'headers', ())).get('Location', '')}"
        found = _CALL_ID.search(seen)
        atoms[CALL_ID_ATOM] = found[1] if found else environ.get(CALL_ID_KEY, "-")
        for name, value in atoms.items():
            if isinstance(value, str):
                atoms[name] = without_token(value if value.isprintable() else printable(value))
        return atoms


class _StatsdLogger(Logger, Statsd):
    """The same, with gunicorn's metrics sent to `statsd_host`."""


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, Mapping):  # a line of the access log, without tokens already
            return True
        if record.exc_info and isinstance(raised := record.exc_info[1], HandlerRaised):
            # The worker has logged the traceback, with the call's id.
            record.msg, record.args = "the app raised, see its worker's log: %s", (_last_line(raised),)
            record.exc_info = record.exc_text = None
        message = record.getMessage()
        redacted = without_token(message)
        if redacted is not message:
            record.msg, record.args = redacted, ()
        return True


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[-1]) if lines else "without a message"
