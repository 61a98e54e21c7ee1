"""`wsgi.file_wrapper` (PEP 3333): yields a file in blocks as large as a stream's chunks."""

from __future__ import annotations

import io
import os
import stat
from typing import Any
from wsgiref.util import FileWrapper as _SmallBlocks

_BLOCK_BYTES = 256 * 1024


class FileWrapper(_SmallBlocks):
    """Reads files and memory in large blocks, whatever block size the app asks for.

    Pipes and sockets are read in the app's block size: their next bytes may come much later, and a larger
    block would hold back those that have come.
    """

    def __init__(self, filelike: Any, blksize: int = 8192) -> None:
        """Take anything with `read(bytes)`; its `close`, if there is one, becomes this object's."""
        if blksize < _BLOCK_BYTES and _is_at_hand(filelike):
            blksize = _BLOCK_BYTES
        super().__init__(filelike, blksize)


def _is_at_hand(filelike: Any) -> bool:
    """Return whether reading never blocks: bytes in memory, or a regular file."""
    if isinstance(filelike, io.BytesIO):
        return True
    try:
        return stat.S_ISREG(os.fstat(filelike.fileno()).st_mode)
    except (AttributeError, OSError, TypeError, ValueError):
        return False  # it has no file descriptor
