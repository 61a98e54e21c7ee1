"""`--reload`: a worker process ends when a file of its app changes, and the pool forks a new one."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

_POLL_SECONDS = 0.1
_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")


class Reloader:
    """Watches the files of all modules that this process has imported, but for installed packages."""

    def __init__(self) -> None:
        #: What lies there changes with an installation, not with an edit.
        self._installed = tuple(sysconfig.get_path(name) + os.sep for name in _INSTALLED)
        self._extra: set[str] = set()
        self._seen: dict[str, tuple[int, int]] = {}
        self._failed = threading.Event()

    def start(self) -> None:
        """Send this process SIGTERM, which lets a running call finish, once a file has changed."""
        threading.Thread(target=self._run, name="wsgi-timeout-reload", daemon=True).start()

    def include(self, error: BaseException) -> None:
        """Watch the files that `error` names, too; call before anybody is told of it, and so edits them."""
        self._failed.set()
        self._extra.update(_files_of(error))
        self._changed()

    def wait(self) -> None:
        """Block until a file changes; SIGTERM ends the process."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while not self._changed():
            time.sleep(_POLL_SECONDS)

    def _run(self) -> None:
        while not self._changed():
            if self._failed.wait(_POLL_SECONDS):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    def _changed(self) -> bool:
        states = [(path, state) for path in self._files() if (state := _state(path))]
        return any(self._seen.setdefault(path, state) != state for path, state in states)

    def _files(self) -> Iterable[str]:
        modules: tuple[ModuleType, ...] = tuple(sys.modules.values())
        imported = {path for module in modules if (path := getattr(module, "__file__", None))}
        return {path for path in imported | self._extra if not path.startswith(self._installed)}


def _state(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None  # an editor puts the new file in its place: look again
    return found.st_mtime_ns, found.st_size


def _files_of(error: BaseException) -> set[str]:
    files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    # A module with a syntax error has no frame, and is not left in `sys.modules`.
    return files | ({error.filename} if isinstance(error, SyntaxError) and error.filename else set())
