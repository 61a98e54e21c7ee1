"""The redirect of a request whose wait is over, to its result URL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wsgi_timeout.front.exchange import Exchange
from wsgi_timeout.http import answers, urls
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.settings import Settings

#: In `Accept`, asks for a 202 in place of a redirect. Browsers hide redirects from scripts and follow twenty
#: at most. See clients/.
PENDING = "application/vnd.wsgi-timeout+json"


def asks_for_202(environ: Mapping[str, Any]) -> bool:
    """Return whether a request asks for 202 in place of a redirect."""
    return PENDING in environ.get("HTTP_ACCEPT", "")


def to_result_url(
    exchange: Exchange, pending: Pending, state: Callable[[], str] = lambda: "running"
) -> Iterable[bytes]:
    """Redirect to the next hop; `state` returns the call's state, and is called if the body shows it.

    The redirect has a body, since many clients that do not follow it would see an empty success.
    """
    environ, settings = exchange.environ, exchange.settings
    origin = urls.origin(environ, settings.public_url)
    result_url, status_url = origin + pending.next_url, origin + pending.status_url
    if "application/json" in environ.get("HTTP_ACCEPT", "").lower() or asks_for_202(environ):
        found = {"state": state(), "result_url": result_url, "status_url": status_url}
        body, content_type = json.dumps(found).encode() + b"\n", "application/json"
    else:
        text = f"This request still runs. Its response will be at\n{result_url}\n"
        body, content_type = text.encode(), "text/plain; charset=utf-8"
    link = ("Link", f'<{pending.status_url}>; rel="monitor"')
    status = _status(environ, settings)
    return answers.redirect(exchange.start_response, status, pending.next_url, [link], body, content_type)


def _status(environ: Mapping[str, Any], settings: Settings) -> str:
    """Return the status of the answer: 303 (follow with GET), 307 (repeat method and body) or 202.

    202 is for clients that do not want redirects. Clients of the Model Context Protocol follow a 307 only;
    the body that they send again is dropped.
    """
    if asks_for_202(environ):
        return "202 Accepted"
    if settings.redirect_status == 307 or "HTTP_MCP_PROTOCOL_VERSION" in environ:
        return "307 Temporary Redirect"
    return "303 See Other"


def accepted(exchange: Exchange, pending: Pending) -> Iterable[bytes]:
    """Answer 202: the call runs, and the client fetches its result later."""
    public_url = exchange.settings.public_url
    origin = urls.origin(exchange.environ, public_url)
    return answers.accepted(
        exchange.start_response,
        public_url + pending.next_url,
        origin + pending.next_url,
        origin + pending.status_url,
    )
