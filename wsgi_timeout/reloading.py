"""`--reload`: a process ends when a file of its app changes, and its parent forks a new one."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Iterable
from importlib.machinery import SourceFileLoader
from pathlib import Path

_POLL_SECONDS = 0.1
_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")


class Reloader:
    """Watches the files of all imported modules, except installed packages."""

    def __init__(self) -> None:
        """Note the state of all files that are imported from now on."""
        #: Folders of installed packages, which are not watched.
        self._installed = tuple(sysconfig.get_path(name) + os.sep for name in _INSTALLED)
        self._seen: dict[str, tuple[int, int]] = {}
        self._failed = threading.Event()
        self._look_before_python_does()

    def start(self) -> None:
        """Send this process SIGTERM, which lets a running call finish, once a file has changed."""
        threading.Thread(target=self._run, name="wsgi-timeout-reload", daemon=True).start()

    def wait(self) -> None:
        """Block until a file changes, after the app could not be loaded; SIGTERM ends the process."""
        self._failed.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while not self._changed():
            time.sleep(_POLL_SECONDS)

    def _look_before_python_does(self) -> None:
        """Note the state of each source file before Python reads it, so that no later edit is missed.

        This also covers files that failed to import, which leave no module behind.
        """
        original = SourceFileLoader.path_stats

        def path_stats(loader: SourceFileLoader, path: str) -> object:
            if state := _state(path):
                self._seen.setdefault(path, state)
            return original(loader, path)

        SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign, assignment]

    def _run(self) -> None:
        while not self._changed():
            if self._failed.wait(_POLL_SECONDS):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    def _changed(self) -> bool:
        states = [(path, state) for path in self._files() if (state := _state(path))]
        return any(self._seen.setdefault(path, state) != state for path, state in states)

    def _files(self) -> Iterable[str]:
        # Some modules do odd things on attribute access.
        spaces = [getattr(module, "__dict__", {}) for module in tuple(sys.modules.values())]
        files = {path for space in spaces if isinstance(path := space.get("__file__"), str)}
        return {path for path in files.union(tuple(self._seen)) if not path.startswith(self._installed)}


def _state(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None  # an editor is replacing the file: look again
    return found.st_mtime_ns, found.st_size
