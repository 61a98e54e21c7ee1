"""Our own answers, in contrast to the app's: small, uncached, without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wsgi_timeout import metrics
from wsgi_timeout.errors import WsgiTimeoutError
from wsgi_timeout.http.cors import start_ours

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

Headers = list[tuple[str, str]]

#: Headers of every answer of ours: a result URL is a secret, and its answer changes.
_PRIVATE: Headers = [("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer")]


def redirect(
    start_response: StartResponse,
    status: str,
    url: str,
    headers: Headers | None = None,
    body: bytes = b"",
    content_type: str = "text/plain; charset=utf-8",
) -> Iterable[bytes]:
    """Answer 303 or 307. Never with `Retry-After`: some clients would wait before they follow."""
    return _send(start_response, status, [("Location", url), *(headers or []), *_PRIVATE], body, content_type)


def accepted(
    start_response: StartResponse, location: str, result_url: str, status_url: str
) -> Iterable[bytes]:
    """Answer 202: the call runs, its result is fetched later."""
    body = {"result_url": result_url, "status_url": status_url}
    return as_json(start_response, "202 Accepted", body, [("Location", location)])


def as_json(
    start_response: StartResponse, status: str, body: Mapping[str, Any], headers: Headers | None = None
) -> Iterable[bytes]:
    data = json.dumps(body).encode() + b"\n"
    return _send(start_response, status, [*(headers or []), *_PRIVATE], data, "application/json")


def problem(
    start_response: StartResponse,
    error: WsgiTimeoutError,
    detail: str,
    headers: Headers | None = None,
    **members: str,
) -> Iterable[bytes]:
    """Answer with an error's status and its problem details (RFC 9457), to which `members` are added."""
    code, _, title = error.status.partition(" ")
    body = {"type": "about:blank", "title": title, "status": int(code), "detail": detail, **members}
    data = json.dumps(body).encode() + b"\n"
    return _send(
        start_response, error.status, [*(headers or []), *_PRIVATE], data, "application/problem+json"
    )


def as_page(
    start_response: StartResponse, status: str, page: bytes, headers: Headers | None = None
) -> Iterable[bytes]:
    """Answer with a page of ours."""
    return _send(start_response, status, [*(headers or []), *_PRIVATE], page, "text/html; charset=utf-8")


def asset(start_response: StartResponse, content_type: str, body: bytes, current: bool) -> Iterable[bytes]:  # noqa: FBT001
    """Answer with a stylesheet or script; `current`: its URL has its digest, so that it may be cached."""
    kept = "public, max-age=31536000, immutable" if current else "no-store"
    headers = [("Cache-Control", kept), ("X-Content-Type-Options", "nosniff")]
    length = ("Content-Length", str(len(body)))
    start_response("200 OK", [("Content-Type", content_type), length, *headers])
    return [body]


def no_more(start_response: StartResponse) -> Iterable[bytes]:
    """Answer 204, which ends an EventSource: no event follows its last one."""
    start_ours(start_response, "204 No Content", [*_PRIVATE])
    return []


def come_back(start_response: StartResponse, seconds: int, detail: str) -> Iterable[bytes]:
    """Answer an EventSource with a stream without events: it comes again in so many seconds.

    Any other status than 200 would end it for good (HTML standard, section 9.2.3).
    """
    # No empty line: some clients would make an empty event of it.
    body = f"retry: {1000 * seconds}\n: {' '.join(detail.split())}\n".encode()
    return _send(start_response, "200 OK", [*_PRIVATE], body, "text/event-stream")


def client_gone(start_response: StartResponse) -> Iterable[bytes]:
    """Answer a client that has disconnected; 499, nginx's code, is for the access log."""
    return _send(start_response, "499 Client Closed Request", [*_PRIVATE], b"", "text/plain")


def wants_html(environ: Mapping[str, Any]) -> bool:
    return "text/html" in environ.get("HTTP_ACCEPT", "")


def _send(
    start_response: StartResponse, status: str, headers: Headers, body: bytes, content_type: str
) -> Iterable[bytes]:
    length = ("Content-Length", str(len(body)))
    start_ours(start_response, status, [("Content-Type", content_type), length, *headers])
    return [body]


def with_headers(
    start_response: StartResponse, more: Sequence[tuple[str, str]], instead: Headers | None = None
) -> StartResponse:
    """Return a `start_response` that sends more headers, or others `instead` of those it is given."""

    def start(status: str, headers: Headers, *exc_info: Any) -> Callable[[bytes], object]:
        kept = headers if instead is None else instead
        return start_response(status, [*kept, *more], *exc_info)

    return start


def counted(start_response: StartResponse, name: str, route: str) -> StartResponse:
    """Return a `start_response` that counts responses, if metrics are on in this process."""
    if not metrics.on():
        return start_response

    def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
        code = status[:3]
        known = len(code) == 3 and code.isascii() and code.isdigit() and "100" <= code < "600"
        metrics.count("requests_total", name, route, code if known else "other")
        return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

    return start
