"""Histories: append-only files of JSON lines, each written by one side, by its own clock."""

import json
import threading
import time
from pathlib import Path


class History:
    """Writes one side's lines; every line is on disk when `note` returns."""

    def __init__(self, path):
        self.path = Path(path)
        self._lock = threading.Lock()
        self._file = self.path.open("a", encoding="utf-8")

    def beside(self, name):
        """Return another history, in the same folder."""
        return History(self.path.with_name(name))

    def note(self, number, what, **more):
        line = json.dumps({"number": number, "what": what, "at": time.monotonic(), **more})
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def close(self):
        self._file.close()


def lines(path):
    """Return what a history says; the last line of a killed process may be cut short."""
    found = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
