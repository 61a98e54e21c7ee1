"""Memory that the processes of a pool share: which of them has set which cookie, and what became of it.

There is no lock: each cookie has one place, and a newer one may take it. What two processes write at once is
read as a cookie that nobody knows; a count may miss one.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
from dataclasses import dataclass

#: A cookie's digest, the process that has set it, its replacements, and when, in monotonic seconds.
_COOKIE = struct.Struct("=QIId")
_COOKIES = 4096
#: The digest of a name, and the counts of what became of its cookies.
_NAME = struct.Struct("=Q4I")
_NAMES = 64
_NAMES_OFFSET = _COOKIES * _COOKIE.size
_SAID_OFFSET = _NAMES_OFFSET + _NAMES * _NAME.size
_MOST = 2**32 - 1
#: Seconds after which a cookie is forgotten. A client that comes more rarely may have a new one by right.
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class SetCookie:
    """A cookie that a process of the pool has set."""

    process: int
    #: The replacements, one after another, that have led to it.
    replacements: int


@dataclass(slots=True)
class Counts:
    """What became of the cookies of one name, in numbers of requests."""

    #: They were kept by the process that had set them, and by another.
    kept: int = 0
    kept_by_another: int = 0
    #: They were replaced by the process that had set them, and by another.
    replaced: int = 0
    replaced_by_another: int = 0


class CookieTable:
    """The cookies that the processes of one pool have set."""

    def __init__(self, processes: int) -> None:
        """Map the memory; to be called before the fork, so that the `processes` share it."""
        self.processes = processes
        self._memory = mmap.mmap(-1, _SAID_OFFSET + 1)

    def find(self, name: str, value: str) -> SetCookie | None:
        """Return what is known of a cookie that was set within a minute."""
        digest = _digest(f"{name}={value}")
        found, process, replacements, at = _COOKIE.unpack_from(self._memory, _place(digest))
        known = found == digest and time.monotonic() - at < _SECONDS
        return SetCookie(process, replacements) if known else None

    def note(self, name: str, value: str, replacements: int, process: int = 0) -> None:
        """Note that a process, this one by default, has set a cookie."""
        digest = _digest(f"{name}={value}")
        entry = (digest, process or os.getpid(), replacements, time.monotonic())
        _COOKIE.pack_into(self._memory, _place(digest), *entry)

    def counts(self, name: str) -> Counts:
        """Return what became of the cookies of one name."""
        digest = _digest(name)
        found, *counts = _NAME.unpack_from(self._memory, _place_of_name(digest))
        return Counts(*counts) if found == digest else Counts()

    def count(self, name: str, counts: Counts) -> None:
        """Set what became of the cookies of one name."""
        digest = _digest(name)
        numbers = (counts.kept, counts.kept_by_another, counts.replaced, counts.replaced_by_another)
        _NAME.pack_into(self._memory, _place_of_name(digest), digest, *(min(each, _MOST) for each in numbers))

    @property
    def said(self) -> bool:
        """Whether a process of the pool has said what there is to say."""
        return bool(self._memory[_SAID_OFFSET])

    @said.setter
    def said(self, value: bool) -> None:
        self._memory[_SAID_OFFSET] = int(value)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _place(digest: int) -> int:
    return digest % _COOKIES * _COOKIE.size


def _place_of_name(digest: int) -> int:
    return _NAMES_OFFSET + digest % _NAMES * _NAME.size
