"""The access log of `serve` in a terminal: one line for each call, when it ends.

    GET     /reports/2025               200      5.2 s   2 hops
    POST    /ocr                        502 lost 41.0 s  1 hop

Redirects, and the requests of a waiting page, have no lines of their own.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from typing import Any

from wsgi_timeout.http.parameters import CALL, MARK
from wsgi_timeout.serving.gunicorn_logger import Logger
from wsgi_timeout.serving.health import is_routine

_CALL = re.compile(rf"{CALL}=(fc-[A-Za-z0-9_-]+)\.")
#: A cookie that holds a call: see `wsgi_timeout.http.cookies`.
_COOKIE = re.compile(rf"{MARK}wait_\w+=(fc-[A-Za-z0-9_-]+)\.")
_STATES = {"499": "left", "502": "lost", "503": "refused", "504": "timed out"}
#: Most calls that are remembered: one whose client has disconnected has no last line that would remove it.
_MOST_CALLS = 1000


class TerminalLogger(Logger):
    """gunicorn's logger with an access log for people."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        #: For each call its method, when it began, in monotonic seconds, and how often it was redirected.
        self._calls: OrderedDict[str, tuple[str, float, int]] = OrderedDict()

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Write a line if this request was the last of its call."""
        if is_routine(environ, str(resp.status)):
            return
        atoms = self.atoms(resp, req, environ, request_time)
        seconds = request_time.total_seconds()
        headers = {(name.lower(), value) for name, value in resp.headers}
        redirect = next((value for name, value in headers if name in {"location", "refresh"}), "")
        if found := _CALL.search(redirect):
            first = atoms["m"], time.monotonic() - seconds, 0
            method, began, hops = self._calls.pop(found[1], first)
            self._calls[found[1]] = method, began, hops + (atoms["s"] == "303")
            if len(self._calls) > _MOST_CALLS:
                self._calls.popitem(last=False)
            return
        query = environ.get("QUERY_STRING", "")
        cookies = (_COOKIE.search(value) for name, value in headers if name == "set-cookie")
        call = _CALL.search(query) or next(filter(None, cookies), None)
        if call is None and MARK in query:
            return
        if call is not None and atoms["s"] == "303":
            return
        first = atoms["m"], time.monotonic() - seconds, 0
        method, began, hops = self._calls.pop(call[1], first) if call else first
        self._line(method, atoms, time.monotonic() - began, hops)

    def _line(self, method: str, atoms: dict[str, Any], seconds: float, hops: int) -> None:
        state = f"{atoms['s']} {_STATES.get(atoms['s'], '')}".strip()
        redirects = f"{hops} hop{'s' * (hops != 1)}" if hops else ""
        line = f"{method:<7} {atoms['U']:<32} {state:<13} {seconds:7.1f} s   {redirects}".rstrip()
        self.access_log.info("%s", line)
