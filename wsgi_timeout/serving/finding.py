"""One line of `wsgi-timeout doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found."""

    check: str
    verdict: Literal["ok", "warn", "fail"]
    what: str
    #: What to do; empty if all is well.
    remedy: str = ""
