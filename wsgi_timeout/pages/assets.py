"""The stylesheet and the script of the pages: files of their own, as a strict CSP forbids inline ones.

They are served on the page's own path as `?__wsgi_timeout_asset=NAME-DIGEST`: this takes no route away from
the app, and works below any prefix of a proxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

#: The query parameter that names an asset.
PARAMETER = "__wsgi_timeout_asset"
#: The user's stylesheet, appended to ours: variables for colour and logo, or any other rules.
THEME = "theme.css"

_SCRIPT = "text/javascript; charset=utf-8"
_TYPES = {"page.css": "text/css; charset=utf-8", "waiting.js": _SCRIPT, "back.js": _SCRIPT}


class Asset(NamedTuple):
    """One file as it is sent."""

    content_type: str
    body: bytes
    #: Whether the URL's digest fits this content, so that clients may cache it for ever.
    current: bool


class Assets:
    """Our stylesheet and script, and the user's stylesheet from the first folder that has one."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._folders = folders
        self._ours = {name: (files(__package__) / "assets" / name).read_bytes() for name in _TYPES}

    def url(self, name: str) -> str:
        """Return the URL of an asset, relative to the page."""
        return f"?{PARAMETER}={name}-{_digest(self._body(name))}"

    def find(self, query: str) -> Asset | None:
        """Return the asset that a query asks for, None if it asks for none."""
        if PARAMETER not in query:
            return None
        values = [
            pair.removeprefix(f"{PARAMETER}=") for pair in query.split("&") if pair.startswith(PARAMETER)
        ]
        name, _, digest = values[0].rpartition("-") if values else ("", "", "")
        if name not in _TYPES:
            return None
        body = self._body(name)
        return Asset(_TYPES[name], body, digest == _digest(body))

    def _body(self, name: str) -> bytes:
        body = self._ours[name]
        if name == "page.css":
            # Read for every request: it is small, and its author sees a change at once.
            body += next((file.read_bytes() for f in self._folders if (file := f / THEME).is_file()), b"")
        return body


def _digest(body: bytes) -> str:
    return sha256(body).hexdigest()[:12]
