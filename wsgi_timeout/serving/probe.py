"""A URL that the doctor asks through the proxy: what arrives here, and how long the proxy lets it take.

Only `wsgi-timeout doctor` is answered: its request names a key that it has written to our Redis.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from wsgi_timeout.front.web_server_limits import served_settings
from wsgi_timeout.http import urls
from wsgi_timeout.store import keys
from wsgi_timeout.store.connection import connect, redis_url
from wsgi_timeout.store.redis_errors import ANY

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

PROBE = "/__wsgi_timeout/probe"
#: Seconds between the two parts of the answer.
PAUSE_SECONDS = 0.5
#: The most that a probe may take.
LONGEST_SECONDS = 3600.0
#: More than the doctor sends as a body.
_MOST_BODY = 1_000_000
_NONCE = re.compile(r"[\w-]{20,60}")


def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answer the doctor after the seconds that it asks for; anybody else gets a 404."""
    query = parse_qs(environ.get("QUERY_STRING", ""))
    if not _is_doctor(query.get("nonce", [""])[0]):
        start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
        return []
    began = time.monotonic()
    environ["wsgi.input"].read(min(_MOST_BODY, int(environ.get("CONTENT_LENGTH") or 0)))
    body_seconds = time.monotonic() - began
    settings = served_settings()
    seconds = float(query.get("seconds", ["0"])[0])
    time.sleep(max(0.0, min(seconds, LONGEST_SECONDS)))
    told = {
        "protocol": environ.get("SERVER_PROTOCOL", ""),
        "origin": urls.origin(environ, settings.public_url),
        "path": urls.prefix(environ, settings.trusted_proxies) + urls.local_path(environ),
        "body_seconds": body_seconds,
        "wait_seconds": settings.wait_seconds,
    }
    start_response("200 OK", [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return _parts(json.dumps(told).encode())


def _parts(told: bytes) -> Iterator[bytes]:
    yield told + b"\n"
    time.sleep(PAUSE_SECONDS)
    yield b"\n"


def _is_doctor(nonce: str) -> bool:
    if not _NONCE.fullmatch(nonce):
        return False
    try:
        with connect(redis_url(), connections=1) as client:
            return bool(client.exists(f"{keys.PROBE}:{nonce}"))
    except ANY:
        return False
