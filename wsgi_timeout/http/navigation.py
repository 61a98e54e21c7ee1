"""Whether a request is a person's browser going to a page, by what browsers say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_navigation(environ: Mapping[str, Any]) -> bool:
    """Return whether a browser will show the answer in a tab.

    A frame, a fetch, an image is not one (Fetch Metadata, W3C). On plain http browsers send no
    `Sec-Fetch-*`, but they announce there that they would take https.
    """
    if environ["REQUEST_METHOD"] not in {"GET", "POST"} or is_prefetch(environ):
        return False
    if mode := environ.get("HTTP_SEC_FETCH_MODE"):
        return bool(mode == "navigate" and environ.get("HTTP_SEC_FETCH_DEST") == "document")
    return environ.get("HTTP_UPGRADE_INSECURE_REQUESTS") == "1" and "text/html" in environ.get(
        "HTTP_ACCEPT", ""
    )


def is_reload(environ: Mapping[str, Any]) -> bool:
    """Return whether a browser says that it loads again what it shows, or was about to."""
    return "max-age=0" in environ.get("HTTP_CACHE_CONTROL", "")


def is_hard_reload(environ: Mapping[str, Any]) -> bool:
    """Return whether a person insists on a new answer. F5 sends `max-age=0`, as a form's POST does too."""
    return "no-cache" in environ.get("HTTP_CACHE_CONTROL", "")


def is_prefetch(environ: Mapping[str, Any]) -> bool:
    return "prefetch" in environ.get("HTTP_SEC_PURPOSE", environ.get("HTTP_PURPOSE", ""))
