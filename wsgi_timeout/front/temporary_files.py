"""Where large bodies lie on the web process's machine: files without names, which go with their process."""

from __future__ import annotations

import os
import tempfile
from typing import IO

#: This part of the disk stays free.
_FREE = 0.1
#: For large temporary files, on disk where /tmp is in memory (the Filesystem Hierarchy Standard, 5.15).
_LARGE_FILES = "/var/tmp"  # noqa: S108 - the files have no name there


def open_file() -> IO[bytes]:
    """Return a new file, in TMPDIR if that is set; raises `OSError`."""
    return tempfile.TemporaryFile(dir=_folder(), buffering=0)


def disk_has_room(file: IO[bytes]) -> bool:
    """Return whether a tenth of the file's disk is free; raises `OSError`."""
    disk = os.fstatvfs(file.fileno())
    return disk.f_bavail >= disk.f_blocks * _FREE


def _folder() -> str:
    if "TMPDIR" not in os.environ and os.access(_LARGE_FILES, os.W_OK):
        return _LARGE_FILES
    return tempfile.gettempdir()
