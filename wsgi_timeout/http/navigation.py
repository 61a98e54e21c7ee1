"""Tells whether a request is a person's browser opening a page, by the headers that browsers send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_navigation(environ: Mapping[str, Any]) -> bool:
    """Return whether a browser will show the answer in a tab; not in a frame, and not a fetch or an image.

    By Fetch Metadata (W3C). On plain http browsers send no `Sec-Fetch-*`, but `Upgrade-Insecure-Requests`.
    """
    if environ["REQUEST_METHOD"] not in {"GET", "POST"} or is_prefetch(environ):
        return False
    if mode := environ.get("HTTP_SEC_FETCH_MODE"):
        return bool(mode == "navigate" and environ.get("HTTP_SEC_FETCH_DEST") == "document")
    return environ.get("HTTP_UPGRADE_INSECURE_REQUESTS") == "1" and "text/html" in environ.get(
        "HTTP_ACCEPT", ""
    )


def is_resumed_download(environ: Mapping[str, Any]) -> bool:
    """Return whether a browser goes on with a download that broke off.

    Seen of Chromium: `Range` with `If-Range`, no `Accept`, and on https a navigation that is shown nowhere.
    """
    if environ["REQUEST_METHOD"] != "GET" or "HTTP_RANGE" not in environ or "HTTP_IF_RANGE" not in environ:
        return False
    if mode := environ.get("HTTP_SEC_FETCH_MODE"):
        return bool(mode == "navigate" and environ.get("HTTP_SEC_FETCH_DEST") == "empty")
    return "HTTP_ACCEPT" not in environ and environ.get("HTTP_USER_AGENT", "").startswith("Mozilla/")


def has_body(environ: Mapping[str, Any]) -> bool:
    """Return whether a request announces a body, which no browser's GET does."""
    return environ.get("CONTENT_LENGTH", "") not in {"", "0"} or "HTTP_TRANSFER_ENCODING" in environ


def is_reload(environ: Mapping[str, Any]) -> bool:
    """Return whether a browser reloads the page that it shows, or was about to show (F5)."""
    return "max-age=0" in environ.get("HTTP_CACHE_CONTROL", "")


def is_hard_reload(environ: Mapping[str, Any]) -> bool:
    """Return whether a person has forced a reload (Ctrl-F5). F5 alone sends `max-age=0`, as POSTs do too."""
    return "no-cache" in environ.get("HTTP_CACHE_CONTROL", "")


def is_prefetch(environ: Mapping[str, Any]) -> bool:
    return "prefetch" in environ.get("HTTP_SEC_PURPOSE", environ.get("HTTP_PURPOSE", ""))
