"""The places at which a call can enter a loaded target."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from wsgi_timeout.extension import EXTENSION, RequestTimeouts
from wsgi_timeout.messages import PLACE

WSGIApp = Callable[..., Iterable[bytes]]


def entries(app: Any) -> dict[str, WSGIApp]:
    """Return the target's WSGI apps by entry: itself, and where its own front stands."""
    found: dict[str, WSGIApp] = {"": app}
    extension = getattr(app, "extensions", {}).get(EXTENSION)
    if isinstance(extension, RequestTimeouts):
        # What stands outside the front has run in the web process.
        found[PLACE] = extension.place
    return found
