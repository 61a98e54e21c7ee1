"""The request header `Prefer` (RFC 7240): `respond-async`, and `wait=SECONDS`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.request import parse_http_list

from wsgi_timeout.http.cors import adding
from wsgi_timeout.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

#: One preference, its value plain or quoted, and parameters, which mean nothing here.
_PREFERENCE = re.compile(r'([^\s=;,"]+)\s*(?:=\s*(?:"([^"]*)"|([^\s;"]*))\s*)?(?:;.*)?', re.DOTALL)
_SECONDS = re.compile(r"[0-9]+")


def apply(
    environ: Mapping[str, Any], settings: Settings, start_response: StartResponse
) -> tuple[Settings, StartResponse, float]:
    """Return what `Prefer` changes; the app sees the header unchanged.

    Returns: the settings, a `start_response` that adds `Preference-Applied`, and for how many seconds a
    call that is answered by 202 is waited for first (RFC 7240 section 4.3: `respond-async, wait=10`).
    """
    if not settings.prefer or "HTTP_PREFER" not in environ:
        return settings, start_response, 0.0
    wanted = _preferences(environ["HTTP_PREFER"])
    applied = []
    if wanted.get("respond-async") == "" and settings.wait_for_response:
        settings = settings.replace(wait_for_response=False)
        applied.append("respond-async")
    wait = wanted.get("wait", "")
    if not _SECONDS.fullmatch(wait):
        wait = ""
    else:
        seconds = max(0.01, min(float(wait), settings.wait_seconds))
        settings = settings.replace(wait_seconds=seconds)
        applied.append(f"wait={wait}")
    if not applied:
        return settings, start_response, 0.0
    waits_first = settings.wait_seconds if wait and not settings.wait_for_response else 0.0
    return settings, adding(start_response, [("Preference-Applied", ", ".join(applied))]), waits_first


def _preferences(header: str) -> dict[str, str]:
    """Return the preferences by name; of one that is given twice the first counts (RFC 7240 section 2)."""
    found: dict[str, str] = {}
    for item in parse_http_list(header):
        if match := _PREFERENCE.fullmatch(item.strip()):
            found.setdefault(match[1].lower(), match[2] or match[3] or "")
    return found
