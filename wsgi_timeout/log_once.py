"""Logs unexpected errors in background loops, each kind once, so that the loop continues."""

from __future__ import annotations

import logging

from wsgi_timeout.compat import Self

log = logging.getLogger("wsgi_timeout")


class LogOnce:
    """A context manager that logs and suppresses unexpected errors, each kind once."""

    def __init__(self, where: str, *, but: tuple[type[Exception], ...] = ()) -> None:
        """`where` names the loop in the log; errors in `but` are not suppressed."""
        self._where = where
        self._but = but
        self._kinds: set[type[BaseException]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if not isinstance(error, Exception) or isinstance(error, self._but):
            return False
        if type(error) not in self._kinds:
            self._kinds.add(type(error))
            log.error("%s: unexpected error, logged once; it goes on", self._where, exc_info=error)
        return True
