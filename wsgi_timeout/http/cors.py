"""Cross-origin requests (WHATWG Fetch): headers for our own answers, and preflights of our URLs.

Without these headers a browser follows no redirect of ours. The app's own answers and preflights are left
to the app.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

Headers = list[tuple[str, str]]

#: Seconds that a browser may keep the answer to a preflight.
_PREFLIGHT_SECONDS = 600


class Start:
    """A `start_response` that knows the CORS headers for our own answers."""

    def __init__(self, start_response: StartResponse, headers: Headers) -> None:
        self._start_response = start_response
        self._headers = headers

    def __call__(self, status: str, headers: Headers, *exc_info: Any) -> Callable[[bytes], object]:
        return self._start_response(status, headers, *exc_info)

    def adding(self, more: Headers) -> Start:
        """Return a `Start` that adds these headers to every answer."""
        return Start(adding(self._start_response, more), self._headers)

    def ours(self, status: str, headers: Headers) -> None:
        """Begin an answer of ours."""
        self._start_response(status, [*headers, *self._headers])


def adding(start_response: StartResponse, more: Headers) -> StartResponse:
    """Return a `start_response` that sends more headers."""
    if isinstance(start_response, Start):
        return start_response.adding(more)

    def start(status: str, headers: Headers, *exc_info: Any) -> Callable[[bytes], object]:
        return start_response(status, [*headers, *more], *exc_info)

    return start


def start_ours(start_response: StartResponse, status: str, headers: Headers) -> None:
    """Begin an answer of ours, with the CORS headers if there are any."""
    if isinstance(start_response, Start):
        start_response.ours(status, headers)
    else:
        start_response(status, headers)


def allowing(environ: Mapping[str, Any], origins: str, start_response: StartResponse) -> StartResponse:
    """Return a `start_response` that lets the allowed `origins` (the setting) read our own answers."""
    if not origins:
        return start_response
    return Start(start_response, [*_allowed(environ, origins), ("Vary", "Origin")])


def is_preflight(environ: Mapping[str, Any]) -> bool:
    """Return whether a request is a CORS preflight."""
    return environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ


def preflight(environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answer the preflight of one of our URLs: an allowed origin may send any method and headers."""
    headers: Headers = [("Cache-Control", "no-store")]
    if isinstance(start_response, Start):
        headers += [
            ("Access-Control-Allow-Methods", environ["HTTP_ACCESS_CONTROL_REQUEST_METHOD"]),
            ("Access-Control-Max-Age", str(_PREFLIGHT_SECONDS)),
        ]
        if wanted := environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS"):
            headers.append(("Access-Control-Allow-Headers", wanted))
    start_ours(start_response, "204 No Content", headers)
    return []


def _allowed(environ: Mapping[str, Any], origins: str) -> Headers:
    origin = environ.get("HTTP_ORIGIN", "")
    listed = [item.strip() for item in origins.split(",")]
    exposed = ("Access-Control-Expose-Headers", "Link, Location, Retry-After")
    if origin and origin in listed:
        allowed = [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
        return [*allowed, exposed]
    # `*`: pages of all origins, but browsers do not accept it for requests with cookies.
    return [("Access-Control-Allow-Origin", "*"), exposed] if "*" in listed and origin else []
