"""Lets other commands find the embedded server of a `serve` that runs in the same folder."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from wsgi_timeout.errors import ConfigurationError


def url_here() -> str:
    """Return REDIS_URL, else the URL of the embedded server that a `serve` of this folder has started.

    Raises:
        ConfigurationError: there is neither, or more than one `serve` runs here.
    """
    if os.environ.get("REDIS_URL"):
        return os.environ["REDIS_URL"]
    found = {}
    with suppress(OSError, RuntimeError):
        for note in _folder().glob(f"{_mark()}-*"):
            url = note.read_text()
            if Path(url.removeprefix("unix://")).exists():
                found[note.name.rpartition("-")[2]] = url
    if len(found) > 1:
        urls = ", ".join(f"REDIS_URL={url} (process {pid})" for pid, url in found.items())
        raise ConfigurationError(f"more than one serve runs in this folder: choose one by {urls}")
    if not found:
        raise ConfigurationError(
            "REDIS_URL is not set, and no serve with an embedded server runs in this folder: "
            "set it to that of the workers, or go to the folder in which `serve` was started"
        )
    return next(iter(found.values()))


def note(url: str) -> None:
    """Let commands in this folder find the server; if this cannot be written, they need REDIS_URL."""
    with suppress(OSError, RuntimeError):
        _folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        _note().write_text(url)


def forget() -> None:
    """Undo `note`."""
    with suppress(OSError, RuntimeError):
        _note().unlink(missing_ok=True)


def _note() -> Path:
    return _folder() / f"{_mark()}-{os.getpid()}"


def _folder() -> Path:
    return (
        Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        / "wsgi-timeout"
        / "running"
    )


def _mark() -> str:
    return hashlib.sha256(str(Path.cwd()).encode()).hexdigest()[:16]
