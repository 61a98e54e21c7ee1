"""Names that Python 3.10 lacks: from newer versions' standard library, else from elsewhere."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from enum import StrEnum
    from typing import Self
else:
    from enum import Enum

    from typing_extensions import Self

    class StrEnum(str, Enum):
        """A string that is one of a few."""

        __str__ = str.__str__

        def __format__(self, format_spec: str) -> str:
            return str(self).__format__(format_spec)


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception; tracebacks show it, except on Python 3.10."""
    if sys.version_info >= (3, 11):
        error.add_note(note)
    else:
        vars(error).setdefault("__notes__", []).append(note)


__all__ = ["Self", "StrEnum", "add_note"]
