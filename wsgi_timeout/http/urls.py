"""Our query parameters, and the URLs that carry them: pure functions.

    __wsgi_timeout_call=fc-ID.TOKEN     the result URL of a call
    __wsgi_timeout_hop=N                makes every URL of a redirect chain different, since many
                                        clients take the same URL twice for a redirect loop
    __wsgi_timeout_status=fc-ID.TOKEN   the status URL
    __wsgi_timeout_offset=N             on a result URL: the byte at which to resume a stream; also as
                                        `offset=N` after our parameters

Other parameters keep order, case and escapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, unquote_to_bytes

from wsgi_timeout.http import parameters
from wsgi_timeout.http.parameters import CALL, HOP, MARK, OFFSET, STATUS

#: Matches a token in a line to be logged, with what stands before it.
TOKEN = re.compile(r"(__wsgi_timeout_(?:call|status)(?:=|%3[Dd])[^.&\s]{0,99})\.[^&\s\"'<>]+")

_REFERENCE = re.compile(r"(fc-[A-Za-z0-9_-]{8,64})\.([A-Za-z0-9_-]{16,128})")
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_PATH_SAFE = "/;=,:@&+$!*'()~"
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_LEADING_SLASHES = re.compile(r"^[/\\]+")
#: What may not stand in a path of ours as it is.
_UNSAFE = re.compile(r"""[^!-~]|[\\"<>#?]""")
#: A path in canonical form: without escapes and without segments that begin with a dot.
_PLAIN = re.compile(r"(?:/(?:[A-Za-z0-9_~-][A-Za-z0-9._~-]*)?)+")


@dataclass(frozen=True, slots=True)
class Reference:
    """What one of our URLs refers to; `call_id` is empty if the parameter is malformed."""

    kind: Literal["call", "status"]
    call_id: str
    token: str
    hop: int
    #: The byte of the body at which to resume; None: the beginning.
    offset: int | None = None


def reference(query: str) -> Reference | None:
    """Return what the query refers to, None for a request that is not ours."""
    found = list(parameters.pairs(query)) if parameters.holds_ours(query) else []
    references = [(name, value) for name, value in found if name in {CALL, STATUS}]
    if not references:
        # A hop alone refers to nothing, but is not shown to the app either.
        return None
    kind: Literal["call", "status"] = "call" if references[0][0] == CALL else "status"
    # A client that merges the parameters of two URLs sends the same one twice; two calls are nobody's URL.
    match = _REFERENCE.fullmatch(references[0][1]) if len(set(references)) == 1 else None
    hops = [value for name, value in found if name == HOP]
    hop = int(hops[0]) if hops and re.fullmatch(r"\d{1,4}", hops[0]) else 0
    call_id, token = match.groups() if match else ("", "")
    offsets = [value for name, value in found if name == OFFSET]
    offset = int(offsets[0]) if offsets and re.fullmatch(r"\d{1,15}", offsets[0]) else None
    return Reference(kind, call_id, token, hop, offset)


def with_our_offset(query: str) -> str:
    """Return a result URL's query in which an `offset` after our parameters is one of ours."""
    return re.sub(rf"({CALL}=[^&]*(?:&{MARK}[^&]*)*&)offset=(?=\d+$)", rf"\1{OFFSET}=", query)


def is_anew(query: str) -> bool:
    """Return whether the query has a hop and no call: the request is to run anew, without conditions."""
    return reference(query) is None and any(name == HOP for name, _ in parameters.pairs(query))


def raw_path(environ: Mapping[str, Any]) -> str:
    """Return the path as the client sent it, still percent-encoded.

    PATH_INFO is decoded (`%2F` has become `/`), so it is used only if the server keeps no raw URI.
    """
    uri = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if not uri:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        return quote(path.encode("latin-1"), safe=_PATH_SAFE)
    # The absolute form (RFC 9112 section 3.2.2) names a host, which must not be trusted.
    path = _ABSOLUTE_FORM.sub("", str(uri).partition("?")[0], count=1)
    return path or "/"


def local(path: str) -> str:
    r"""Return `path` in a form that a browser cannot take for another host.

    `//evil.com/x` and `/\evil.com` are network-path references (RFC 3986 section 4.2).
    """
    return _UNSAFE.sub(lambda found: _escape(found[0]), "/" + _LEADING_SLASHES.sub("", path))


def local_path(environ: Mapping[str, Any]) -> str:
    """Return this request's raw path as it stands in our URLs."""
    return local(raw_path(environ))


def canonical_path(environ: Mapping[str, Any]) -> str:
    """Return this request's path normalised: escapes, and dot segments (RFC 3986 section 6.2.2).

    Some clients re-encode the path of a redirect, so paths are stored and compared in this form.
    """
    path = local_path(environ)
    if _PLAIN.fullmatch(path):
        return path
    segments: list[bytes] = []
    last = b""
    for last in unquote_to_bytes(path).split(b"/"):
        if last == b"..":
            del segments[max(1, len(segments) - 1) :]
        elif last != b".":
            segments.append(last)
    if last in {b".", b".."}:
        segments.append(b"")
    return quote(b"/".join(segments), safe=_PATH_SAFE)


def prefix(environ: Mapping[str, Any], trusted_proxies: str) -> str:
    """Return the path prefix that a trusted proxy has stripped, without a trailing slash."""
    value = environ.get("HTTP_X_FORWARDED_PREFIX", "").split(",")[0].strip().rstrip("/")
    # werkzeug's ProxyFix, if it runs outside, has replaced the peer's address by the client's.
    peer = environ.get("werkzeug.proxy_fix.orig", environ).get("REMOTE_ADDR", "")
    trusted = [item.strip() for item in trusted_proxies.split(",")]
    # The peer of a unix socket has no address, and is always local.
    if not value or not (peer in trusted or "*" in trusted or peer == ""):
        return ""
    return local(value)


def origin(environ: Mapping[str, Any], public_url: str) -> str:
    """Return scheme and host for absolute URLs of ours: `public_url` if set, else those of the request."""
    if public_url:
        return public_url
    host = environ.get("HTTP_HOST", "")
    if not _HOST.fullmatch(host):
        host = f"{environ.get('SERVER_NAME', 'localhost')}:{environ.get('SERVER_PORT', '80')}"
    return f"{environ.get('wsgi.url_scheme', 'http')}://{host}"


def clean_url(environ: Mapping[str, Any], trusted_proxies: str) -> str:
    """Return this request's own URL, path-absolute, without our parameters."""
    path = prefix(environ, trusted_proxies) + local_path(environ)
    query = parameters.strip_query(environ.get("QUERY_STRING", ""))
    return path + ("?" + _printable(query) if query else "")


def anew_url(clean: str) -> str:
    """Return a URL that runs the request anew; no client has a cached copy of this one."""
    return f"{_with_query(clean)}{HOP}=0"


def result_url(clean: str, call_id: str, token: str, hop: int) -> str:
    return f"{_with_query(clean)}{CALL}={call_id}.{token}&{HOP}={hop}"


def status_url(clean: str, call_id: str, token: str) -> str:
    return f"{_with_query(clean)}{STATUS}={call_id}.{token}"


def _with_query(clean: str) -> str:
    return clean + ("&" if "?" in clean else "?")


def _printable(query: str) -> str:
    # Escapes bytes that a header must not contain, and a `#`, which would cut our parameters off.
    return "".join(char if "!" <= char <= "~" and char != "#" else _escape(char) for char in query)


def _escape(char: str) -> str:
    return quote(char.encode("latin-1", "replace"))
