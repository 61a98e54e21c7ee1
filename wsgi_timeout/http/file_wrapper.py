"""`wsgi.file_wrapper` (PEP 3333): a file in blocks of the size in which bodies travel."""

from __future__ import annotations

import io
import os
import stat
from typing import Any
from wsgiref.util import FileWrapper as _SmallBlocks

_BLOCK_BYTES = 256 * 1024


class FileWrapper(_SmallBlocks):
    """Reads large blocks of what is at hand, whatever it is asked for; of a pipe or socket as asked.

    Those may give their next bytes much later: a larger block would hold back what is there.
    """

    def __init__(self, filelike: Any, blksize: int = 8192) -> None:
        """Take anything with `read(bytes)`; its `close`, if there is one, becomes this object's."""
        if blksize < _BLOCK_BYTES and _is_at_hand(filelike):
            blksize = _BLOCK_BYTES
        super().__init__(filelike, blksize)


def _is_at_hand(filelike: Any) -> bool:
    """Whether a read waits for nobody: bytes in memory, or a regular file."""
    if isinstance(filelike, io.BytesIO):
        return True
    try:
        return stat.S_ISREG(os.fstat(filelike.fileno()).st_mode)
    except (AttributeError, OSError, TypeError, ValueError):
        return False  # not a file of the system
