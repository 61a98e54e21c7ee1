"""What a request asks for, so that requests on a result URL can be compared with the call's own request.

A result URL belongs to one request. Clients may re-encode its URL (`~` for `%7E`, the case of escapes), so
queries are compared decoded. Credentials and conditions are headers, which a client sends on some hops only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_to_bytes
from urllib.request import parse_http_list

import msgpack

from wsgi_timeout import tracing
from wsgi_timeout.compat import Self
from wsgi_timeout.http import parameters
from wsgi_timeout.http.environ import PRECONDITIONS

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Statuses that answer a precondition (RFC 9110 section 13), and those that answer a range (section 14).
_OF_PRECONDITION = frozenset({"304", "412"})
_OF_RANGE = frozenset({"206", "416"})
#: Authentication schemes whose header differs between requests though the credentials are the same.
_VOLATILE = frozenset({"negotiate", "ntlm"})
_VOLATILE_MARK = b"~"


@dataclass(frozen=True, slots=True)
class Asked:
    """Digests of what a request asks for; empty for what it does not send."""

    method: str
    query: bytes
    conditions: bytes
    range: bytes
    credentials: bytes
    last_event: bytes
    #: Whether its client waits for the response: `wait_for_response`.
    waits: bool = True
    #: With an idempotency key: seconds for which the response is kept after its delivery.
    kept_seconds: float = 0.0
    #: The traceparent of its span (W3C Trace Context), if it is traced.
    trace: str = ""

    @classmethod
    def by(cls, environ: Mapping[str, Any], *, waits: bool = True, kept_seconds: float = 0.0) -> Self:
        """Return what a request asks for."""
        return cls(
            environ["REQUEST_METHOD"],
            _digest(_query(parameters.strip_query(environ.get("QUERY_STRING", "")))),
            _digest("\n".join(key + environ[key] for key in PRECONDITIONS if key in environ)),
            _digest(environ.get("HTTP_RANGE", "")),
            _credentials(environ.get("HTTP_AUTHORIZATION", "")),
            _digest(environ.get("HTTP_LAST_EVENT_ID", "")),
            waits,
            kept_seconds,
            tracing.traceparent(environ),
        )

    @classmethod
    def on_result_url(cls, environ: Mapping[str, Any]) -> Self:
        """Return what a request on a result URL asks for, without the conditions of a browser's own copies.

        Chromium sends the condition for its copy of a stylesheet, a script or an image on to where redirects
        lead, and shows nothing where that is answered by a 304.
        """
        asked = cls.by(environ)
        return replace(asked, conditions=b"") if _is_loaded_by_browser(environ) else asked

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb([getattr(self, name) for name in self.__slots__])
        return packed

    @classmethod
    def unpack(cls, blob: bytes) -> Self:
        return cls(*msgpack.unpackb(blob))

    def is_for(self, call: Asked) -> bool:
        """Return whether this request, on the call's result URL, asks for what the call's own asked for."""
        if self.query != call.query or (call.method == "HEAD" and self.method != "HEAD"):
            return False
        # After an event stream that broke off, the client already has the events up to `last_event`.
        return not self.last_event or self.last_event == call.last_event or not call.waits

    @property
    def has_terms(self) -> bool:
        """Return whether it has a condition, or asks for a range."""
        return bool(self.conditions or self.range)

    def other_terms(self, call: Asked) -> bool:
        """Return whether it has a condition, or asks for a range, that the call's own request did not."""
        return bool(
            (self.conditions and self.conditions != call.conditions)
            or (self.range and self.range != call.range)
        )

    def takes(self, status: str, headers: list[tuple[str, str]], call: Asked) -> bool:
        """Return whether a recorded response, of this status line and headers, fits this request.

        An answer to a condition fits only requests with the same condition; a challenge (401) fits only
        requests with the same credentials.
        """
        code = status[:3]
        if code == "401":
            return not (call.waits and self._answers_challenge(headers, call))
        if call.method not in SAFE:
            return True
        if code in _OF_PRECONDITION:
            return not call.conditions or self.conditions == call.conditions
        return code not in _OF_RANGE or not call.range or self.range == call.range

    def _answers_challenge(self, headers: list[tuple[str, str]], call: Asked) -> bool:
        if not self.credentials or self.credentials == call.credentials:
            return False
        # After a 303 a POST has become a GET: run anew it would be another request than was meant.
        if call.method not in SAFE and self.method != call.method:
            return False
        volatile = self.credentials[:1] == call.credentials[:1] == _VOLATILE_MARK
        # In the middle of a login in several steps, the challenge carries the server's part of it.
        return not volatile or any(
            name.lower() == "www-authenticate" and " " in value.strip() and _is_volatile(value)
            for name, value in headers
        )


def wants_another_run(environ: Mapping[str, Any], call_id: str) -> bool:
    """Return whether this request, after the result was delivered, wants the app to run again.

    So do a browser's navigation (a reload, `<meta refresh>`), an EventSource, and a page's script: for them
    the result URL has become the page's address. A program that follows redirects only wants the result.
    """
    if environ["REQUEST_METHOD"] not in SAFE or _is_page_load(environ):
        return True
    if "HTTP_LAST_EVENT_ID" in environ or "text/event-stream" in environ.get("HTTP_ACCEPT", ""):
        return True
    # A page shown at the result URL sends its address: in Referer, or HX-Current-URL.
    return "HTTP_HX_REQUEST" in environ or any(
        call_id in value
        for key, value in environ.items()
        if key.startswith("HTTP_")
        and key not in {"HTTP_COOKIE", "HTTP_AUTHORIZATION"}
        and isinstance(value, str)
    )


def _is_page_load(environ: Mapping[str, Any]) -> bool:
    """Return whether a browser loads this address in a window or a frame."""
    mode = environ.get("HTTP_SEC_FETCH_MODE")
    if mode is not None:
        return bool(mode == "navigate")
    # On plain http browsers send no `Sec-Fetch-Mode`.
    return "text/html" in environ.get("HTTP_ACCEPT", "") and "HTTP_UPGRADE_INSECURE_REQUESTS" in environ


def _is_loaded_by_browser(environ: Mapping[str, Any]) -> bool:
    """Whether a browser loads this by itself, and not for a script that may have set a condition."""
    dest = environ.get("HTTP_SEC_FETCH_DEST")
    if dest is not None:
        return bool(dest != "empty")
    # On plain http a browser does not say so: its scripts get the whole page too.
    return bool(environ.get("HTTP_USER_AGENT", "").startswith("Mozilla/"))


def _digest(text: str | bytes) -> bytes:
    if not text:
        return b""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return sha256(data).digest()[:8]


def _query(raw: str) -> bytes:
    """Return a query decoded and sorted by names; parameters of the same name keep their order."""
    if not raw:
        return b""
    items = []
    for pair in filter(None, raw.split("&")):
        name, _, value = pair.replace("+", " ").encode("latin-1", "replace").partition(b"=")
        items.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    packed: bytes = msgpack.packb(sorted(items, key=lambda item: item[0])) if items else b""
    return packed


def _credentials(authorization: str) -> bytes:
    """Return a digest of the part of the header that is the same in all requests with these credentials.

    Digest authentication signs each URL anew (RFC 7616 section 3.4): compared as a whole, every request
    would seem to have other credentials, and wrong ones would be sent for ever.
    """
    if not authorization:
        return b""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "digest":
        fields = (re.sub(r"\s*=\s*", "=", field, count=1) for field in parse_http_list(rest))
        same = ("username=", "username*=", "realm=", "nonce=")
        kept = sorted(field for field in fields if field.lower().startswith(same))
        return _digest("digest " + " ".join(kept))
    return (_VOLATILE_MARK if _is_volatile(authorization) else b"") + _digest(authorization)


def _is_volatile(credentials: str) -> bool:
    return credentials.partition(" ")[0].lower() in _VOLATILE
