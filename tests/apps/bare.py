"""A bare WSGI callable, strict about PEP 3333: it answers with the environ that it was given."""

import json
import os
import time
from pathlib import Path
from urllib.parse import parse_qsl
from wsgiref.validate import validator

_TOLD = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "RAW_URI", "REQUEST_METHOD", "REMOTE_ADDR")
_TOLD_PREFIXES = ("CONTENT_", "HTTP_", "wsgi.url_scheme", "SERVER_PROTOCOL")


@validator
def app(environ, start_response):
    """Wait until `file` exists, then do as the query says."""
    query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    if "raise" in query:
        raise ValueError("as intended")
    if "pieces" in query:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return pieces(int(query["pieces"]), query)
    wait(query)
    if "empty" in query:
        bodiless = query["empty"].startswith(("204", "304"))
        headers = [] if bodiless else [("Content-Type", "text/plain"), ("Content-Length", "0")]
        start_response(query["empty"], [*headers, ("X-Empty", "yes")])
        return []
    told = {key: value for key, value in environ.items() if key in _TOLD or key.startswith(_TOLD_PREFIXES)}
    body = b"".join(iter(lambda: environ["wsgi.input"].read(65_536), b""))
    text = json.dumps(
        {**told, "body": len(body), "pid": os.getpid() if "pid" in query else 0}, sort_keys=True
    )
    headers = [("Content-Type", "application/json"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    start_response("200 Told", headers)
    return [text.encode()]


def pieces(count, query):
    """Yield pieces; all but the first wait."""
    for number in range(count):
        if number:
            wait(query)
        yield b"piece %d\n" % number


def wait(query):
    while "file" in query and not Path(query["file"]).exists():
        time.sleep(0.01)
