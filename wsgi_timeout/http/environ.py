"""Turns a WSGI environ (PEP 3333) into a message, and back: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO, TextIO

from wsgi_timeout.http import parameters
from wsgi_timeout.http.file_wrapper import FileWrapper
from wsgi_timeout.http.printable import printable, without_token
from wsgi_timeout.metrics import ROUTE_KEY

WSGIEnvironment = dict[str, Any]

#: Keys other than HTTP_* that describe the request. A list of what to send and not of what to drop, since
#: servers and middleware put sockets, functions and caches into the environ.
_REQUEST_KEYS = frozenset(
    {
        "REQUEST_METHOD",
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "CONTENT_TYPE",
        "CONTENT_LENGTH",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "SERVER_SOFTWARE",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "REMOTE_HOST",
        "REMOTE_USER",
        "REMOTE_IDENT",
        "AUTH_TYPE",
        "REQUEST_SCHEME",
        "RAW_URI",
        "REQUEST_URI",
        "wsgi.url_scheme",
        ROUTE_KEY,
    }
)
_REQUEST_PREFIXES = ("HTTP_", "SSL_", "PROXY_")
_URLS = frozenset({"QUERY_STRING", "RAW_URI", "REQUEST_URI"})

#: Headers whose answers (304, 206, 412, 416) fit no other request.
PRECONDITIONS = (
    "HTTP_IF_MATCH",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_UNMODIFIED_SINCE",
)
#: How many characters of a client's X-Request-ID are logged.
_LONGEST_ID = 128

CONDITIONS = frozenset({*PRECONDITIONS, "HTTP_IF_RANGE", "HTTP_RANGE"})


def capture(environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `environ` that another process can use, without our parameters."""
    captured = {
        key: value
        for key, value in environ.items()
        if isinstance(value, str) and (key in _REQUEST_KEYS or key.startswith(_REQUEST_PREFIXES))
    }
    if _may_hold_ours(captured):
        captured.update(_cleaned(captured))
    captured.setdefault("QUERY_STRING", "")
    return captured


def clean(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Return an environ without our parameters; the same object if it has none."""
    changes = _cleaned(environ) if _may_hold_ours(environ) else {}
    return {**environ, **changes} if changes else environ


def _may_hold_ours(environ: Mapping[str, Any]) -> bool:
    """Return whether any text has our parameters' common beginning, or escapes, in which that may hide."""
    for value in environ.values():
        if isinstance(value, str) and ("%" in value or parameters.MARK in value):
            return True
    return False


def _cleaned(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return the values that hold parameters of ours, without them.

    They may be in the query, the raw URI and any header: browsers and libraries send the address of the
    current page (Referer, HX-Current-URL), which may be a result URL.
    """
    changes = {}
    for key, value in environ.items():
        if (
            (key in _URLS or key.startswith("HTTP_"))
            and isinstance(value, str)
            and parameters.holds_ours(value)
        ):
            strip = parameters.strip_query if key == "QUERY_STRING" else parameters.strip
            changes[key] = strip(value)
    return changes


def without_conditions(environ: Mapping[str, Any]) -> WSGIEnvironment:
    """Return a request's environ without conditions and ranges (RFC 9110 sections 13 and 14)."""
    return {key: value for key, value in environ.items() if key not in CONDITIONS}


def restore(
    captured: Mapping[str, Any], body: BinaryIO, log: TextIO, *, multithread: bool
) -> WSGIEnvironment:
    """Return a new environ for one run of the app in this process.

    `body` becomes `wsgi.input`, which returns b"" at its end; `log` becomes `wsgi.errors`.
    """
    environ: WSGIEnvironment = dict(captured)
    environ.update(
        {
            "wsgi.version": (1, 0),
            "wsgi.input": body,
            "wsgi.input_terminated": True,
            "wsgi.errors": log,
            # Not the server's wrapper, which would need the file in the server's process.
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
    )
    return environ


def request_id(environ: Mapping[str, Any]) -> str:
    """Return the request's X-Request-ID as it may stand in logs; empty: it has none."""
    given: str = environ.get("HTTP_X_REQUEST_ID", "")[:_LONGEST_ID]
    return without_token(printable(given.encode("ascii", "backslashreplace").decode()))
