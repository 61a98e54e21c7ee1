"""The answers that are ours and not the app's: small, uncached, without secrets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from html import escape
from typing import TYPE_CHECKING, Any

from wsgi_timeout.errors import CallRefused, WsgiTimeoutError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

Headers = list[tuple[str, str]]

#: On every answer of ours: a result URL is a secret, and what it answers changes.
_PRIVATE: Headers = [("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer")]

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}}</style>
<h1>{title}</h1>
<p>{text}</p>
{link}</html>
"""


def redirect(start_response: StartResponse, status: str, url: str) -> Iterable[bytes]:
    """Answer 303 or 307. Never with `Retry-After`: some clients would wait before they follow."""
    return _send(start_response, status, [("Location", url), *_PRIVATE], b"", "text/plain; charset=utf-8")


def accepted(start_response: StartResponse, result_url: str, status_url: str) -> Iterable[bytes]:
    """Answer 202: the call runs, its result is fetched later."""
    body = {"result_url": result_url, "status_url": status_url}
    return as_json(start_response, "202 Accepted", body, [("Location", result_url)])


def as_json(
    start_response: StartResponse, status: str, body: Mapping[str, Any], headers: Headers | None = None
) -> Iterable[bytes]:
    data = json.dumps(body).encode() + b"\n"
    return _send(start_response, status, [*(headers or []), *_PRIVATE], data, "application/json")


def error(
    environ: Mapping[str, Any], start_response: StartResponse, problem: WsgiTimeoutError
) -> Iterable[bytes]:
    """Answer with an error's own status: a small page for a browser, else problem details (RFC 9457)."""
    headers = [*_PRIVATE]
    if isinstance(problem, CallRefused):
        headers.append(("Retry-After", str(problem.retry_after)))
    code, _, title = problem.status.partition(" ")
    if _wants_html(environ):
        page = _PAGE.format(title=escape(title), text=escape(str(problem)), link="")
        return _send(start_response, problem.status, headers, page.encode(), "text/html; charset=utf-8")
    body = {"type": "about:blank", "title": title, "status": int(code), "detail": str(problem)}
    data = json.dumps(body).encode() + b"\n"
    return _send(start_response, problem.status, headers, data, "application/problem+json")


def gone(
    environ: Mapping[str, Any], start_response: StartResponse, delivered_ms: int, clean_url: str
) -> Iterable[bytes]:
    """Answer 410: this result was delivered, and when; the link opens the address anew."""
    when = formatdate(delivered_ms / 1000, usegmt=True)
    text = f"This result was delivered on {when} and is not kept after that."
    if _wants_html(environ):
        link = f'<p><a href="{escape(clean_url)}">Open this address anew</a></p>\n'
        page = _PAGE.format(title="Already delivered", text=escape(text), link=link)
        return _send(start_response, "410 Gone", [*_PRIVATE], page.encode(), "text/html; charset=utf-8")
    body = {"type": "about:blank", "title": "Gone", "status": 410, "detail": text, "url": clean_url}
    data = json.dumps(body).encode() + b"\n"
    return _send(start_response, "410 Gone", [*_PRIVATE], data, "application/problem+json")


def client_gone(start_response: StartResponse) -> Iterable[bytes]:
    """Answer nobody: the status is for the access log (nginx's code)."""
    return _send(start_response, "499 Client Closed Request", [*_PRIVATE], b"", "text/plain")


def _wants_html(environ: Mapping[str, Any]) -> bool:
    return "text/html" in environ.get("HTTP_ACCEPT", "")


def _send(
    start_response: StartResponse, status: str, headers: Headers, body: bytes, content_type: str
) -> Iterable[bytes]:
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers])
    return [body]
