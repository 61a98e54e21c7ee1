"""The request header `Prefer` (RFC 7240): `respond-async`, and `wait=SECONDS`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wsgi_timeout.http.cors import adding
from wsgi_timeout.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

_WAIT = re.compile(r'wait\s*=\s*"?(\d{1,6})"?')


def apply(
    environ: Mapping[str, Any], settings: Settings, start_response: StartResponse
) -> tuple[Settings, StartResponse]:
    """Return settings changed as `Prefer` says, and a `start_response` that adds `Preference-Applied`.

    The app sees `Prefer` unchanged.
    """
    if not settings.prefer or "HTTP_PREFER" not in environ:
        return settings, start_response
    applied = []
    for preference in environ["HTTP_PREFER"].lower().split(","):
        wanted = preference.partition(";")[0].strip()
        if wanted == "respond-async" and settings.wait_for_response:
            settings = settings.replace(wait_for_response=False)
            applied.append(wanted)
        elif found := _WAIT.fullmatch(wanted):
            seconds = max(0.01, min(float(found[1]), settings.wait_seconds))
            settings = settings.replace(wait_seconds=seconds)
            applied.append(f"wait={found[1]}")
    if not applied:
        return settings, start_response
    return settings, adding(start_response, [("Preference-Applied", ", ".join(applied))])
