"""What is logged, and how: the level of the environment, and lines as JSON (`log_format=json`)."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.settings import LOG_LEVEL_VARIABLE

#: Members of a line of gunicorn's access log, by its atoms.
_ACCESS = {
    "client": "h",
    "method": "m",
    "path": "U",
    "status": "s",
    "bytes": "B",
    "seconds": "L",
    "call": "{wsgi_timeout.call_id}e",
    "request_id": "{x-request-id}i",
}
#: A message that begins with a call's id is about that call.
_OF_CALL = re.compile(r"(fc-[\w-]{8,64})(?: |: )", re.ASCII)
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_NUMBERS = {"status": int, "bytes": int, "seconds": float}


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, with the members given as `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": moment, "level": record.levelname, "logger": record.name}
        if isinstance(record.args, Mapping):
            line |= _of_request(record.args)
        else:
            line["message"] = record.getMessage()
            if found := _OF_CALL.match(line["message"]):
                line["call"] = found[1]
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _of_request(atoms: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: atoms[atom] for name, atom in _ACCESS.items() if atoms.get(atom) not in {None, "-"}}
    for name, kind in _NUMBERS.items():
        if name in shown:
            shown[name] = kind(shown[name])
    return shown


def level(default: int | str) -> int | str:
    """Return the level that the environment sets for our lines; raises `ConfigurationError` for no level."""
    given = os.environ.get(LOG_LEVEL_VARIABLE, "")
    if given and given.upper() not in _LEVELS:
        raise ConfigurationError(f"{LOG_LEVEL_VARIABLE}={given!r}: use DEBUG, INFO, WARNING or ERROR")
    return given.upper() or default
