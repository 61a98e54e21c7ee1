"""Which requests run as calls: patterns of method and path, compiled once.

    /reports/*          any method; `*` stands for any characters, `/` too
    POST /ocr           one method
    GET,POST /export*   several

A pattern must match the whole decoded path below the front; case counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.settings import Settings

#: The settings that may differ between routes; all others are the same for the whole process.
PER_ROUTE = frozenset(
    {
        "page_after",
        "wait_seconds",
        "timeout",
        "wait_for_response",
        "waiting_page",
        "max_attempts",
        "max_request_body",
        "max_result",
        "unread_timeout",
        "result_ttl",
        "delivery_grace",
        "event_streams",
        "abandon_after",
        "durability",
        "reader_timeout",
        "keepalive_seconds",
        "resume_window",
        "redirect_status",
        "prefer",
        "idempotency_headers",
    }
)

#: How many patterns logs and metrics tell apart: each is a label of a dozen series or more.
MOST_NAMED = 100

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


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Return what matches where one of the patterns does; None: there are none."""
    compiled = "|".join(compile_pattern(pattern).pattern for pattern in patterns)
    return re.compile(compiled, re.DOTALL) if compiled else None


def listed(option: str, patterns: Iterable[str]) -> tuple[str, ...]:
    """Return an option's patterns; raises `ConfigurationError` for a single string in place of a list."""
    if isinstance(patterns, str):
        raise ConfigurationError(f"{option}={patterns!r}: write a list of patterns, [{patterns!r}]")
    return tuple(patterns)


class Routes:
    """Which requests run as calls, and with which settings.

    `only` names what runs as calls (empty: everything), `except_` what does not. `routes` gives settings to
    the requests that pass both; the first pattern that matches counts.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        only: Iterable[str] = (),
        except_: Iterable[str] = (),
        routes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Compile the patterns; raises `ConfigurationError` for a bad pattern or setting."""
        self.settings = settings
        named = [*(routes or {}), *listed("only", only)]
        self._patterns = [(pattern, compile_pattern(pattern)) for pattern in named[:MOST_NAMED]]
        self._only = _any_of(listed("only", only))
        self._except = _any_of(listed("except_", except_))
        self._routes = tuple(
            (compile_pattern(pattern), _changed(settings, pattern, changes))
            for pattern, changes in (routes or {}).items()
        )

    @property
    def capture_all(self) -> bool:
        return not self._only and not self._except

    @property
    def durable(self) -> bool:
        """Whether any request runs as a call that is to be on disk first."""
        return any(settings.durable for settings in (self.settings, *(each for _, each in self._routes)))

    def route(self, environ: Mapping[str, Any]) -> str:
        """Return the pattern of `routes`, else of `only`, that matches; for logs and metrics.

        Of the first `MOST_NAMED` patterns; `*` stands for all others.
        """
        if not self._patterns:
            return "*"
        subject = _subject(environ)
        return next((text for text, pattern in self._patterns if pattern.fullmatch(subject)), "*")

    def match(self, environ: Mapping[str, Any]) -> Settings | None:
        """Return the settings of a request that runs as a call, None for one that does not."""
        if self.capture_all and not self._routes:
            return self.settings
        subject = _subject(environ)
        if self._only and not self._only.fullmatch(subject):
            return None
        if self._except and self._except.fullmatch(subject):
            return None
        for pattern, settings in self._routes:
            if pattern.fullmatch(subject):
                return settings
        return self.settings


def _subject(environ: Mapping[str, Any]) -> str:
    # PATH_INFO holds UTF-8 bytes as latin-1 (PEP 3333); a pattern is text.
    path = environ.get("PATH_INFO", "")
    if not path.isascii():
        path = path.encode("latin-1", "replace").decode("utf-8", "replace")
    return f"{environ['REQUEST_METHOD']} {path}"


def _changed(settings: Settings, pattern: str, changes: Mapping[str, Any]) -> Settings:
    unknown = sorted(set(changes) - PER_ROUTE)
    if unknown:
        raise ConfigurationError(
            f"route {pattern!r}: {', '.join(unknown)} cannot be set per route, "
            f"only {', '.join(sorted(PER_ROUTE))}"
        )
    try:
        return settings.replace(**changes)
    except ConfigurationError as error:
        raise ConfigurationError(f"route {pattern!r}: {error}") from None
