"""A WSGI environ (PEP 3333) to a message, and back: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO, TextIO
from wsgiref.util import FileWrapper

from wsgi_timeout.http import urls

WSGIEnvironment = dict[str, Any]

#: Keys beside HTTP_* that carry facts about the request. A list of what to send, not of what to
#: drop: servers and middleware put sockets, functions and caches into the environ.
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
    }
)
_REQUEST_PREFIXES = ("HTTP_", "SSL_", "PROXY_")


def capture(environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `environ` that another process can use.

    Our own query parameters are taken out wherever a client's URL may appear: in the query, the raw
    URI, and the Referer that a browser sends from a page shown under a result URL.
    """
    captured = {
        key: value
        for key, value in environ.items()
        if isinstance(value, str) and (key in _REQUEST_KEYS or key.startswith(_REQUEST_PREFIXES))
    }
    for key in ("QUERY_STRING", "RAW_URI", "REQUEST_URI", "HTTP_REFERER"):
        if urls.MARK in captured.get(key, ""):
            strip = urls.strip_query if key == "QUERY_STRING" else urls.strip_uri
            captured[key] = strip(captured[key])
    captured.setdefault("QUERY_STRING", "")
    return captured


def restore(
    captured: Mapping[str, Any], body: BinaryIO, log: TextIO, *, multithread: bool
) -> WSGIEnvironment:
    """Return a new environ for one run of the app in this process.

    `body` becomes `wsgi.input`, and ends by itself; `log` becomes `wsgi.errors`.
    """
    environ: WSGIEnvironment = dict(captured)
    environ.update(
        {
            "wsgi.version": (1, 0),
            "wsgi.input": body,
            "wsgi.input_terminated": True,
            "wsgi.errors": log,
            # Not the server's, whose files are in another process.
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
    )
    return environ
