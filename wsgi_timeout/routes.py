"""Which requests run as calls: patterns of method and path, compiled once.

    /reports/*          any method; `*` stands for any characters, `/` too
    POST /ocr           one method
    GET,POST /export*   several

A pattern is held against the whole decoded path below the front, case and all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wsgi_timeout.errors import ConfigurationError

_PATTERN = re.compile(r"(?:([A-Za-z]+(?:,[A-Za-z]+)*)\s+)?(/\S*|\*\S*)")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression over `METHOD /path`; raises `ConfigurationError`."""
    match = _PATTERN.fullmatch(pattern.strip())
    if not match:
        raise ConfigurationError(
            f"route pattern {pattern!r}: write a path that begins with /, with a method before it if "
            "need be, as in '/reports/*' or 'POST /ocr'"
        )
    methods, path = match.groups()
    method = "|".join(methods.upper().split(",")) if methods else r"\S+"
    glob = ".*".join(re.escape(part) for part in path.split("*"))
    return re.compile(f"(?:{method}) {glob}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Routes:
    """`only` names what runs as calls (empty: all), `except_` what does not."""

    only: Iterable[str] = ()
    except_: Iterable[str] = ()
    _only: tuple[re.Pattern[str], ...] = field(init=False)
    _except: tuple[re.Pattern[str], ...] = field(init=False)

    def __post_init__(self) -> None:
        for name, patterns in (("_only", self.only), ("_except", self.except_)):
            object.__setattr__(self, name, tuple(compile_pattern(pattern) for pattern in patterns))

    @property
    def capture_all(self) -> bool:
        return not self._only and not self._except

    def match(self, environ: Mapping[str, Any]) -> bool:
        """Return whether this request runs as a call."""
        # PATH_INFO holds UTF-8 bytes as latin-1 (PEP 3333); a pattern is text.
        path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")
        subject = f"{environ['REQUEST_METHOD']} {path}"
        if self._only and not any(pattern.fullmatch(subject) for pattern in self._only):
            return False
        return not any(pattern.fullmatch(subject) for pattern in self._except)
