"""Errors that nobody expected: logged once each, so that a loop which others rely on goes on."""

from __future__ import annotations

import logging

from wsgi_timeout.compat import Self

log = logging.getLogger("wsgi_timeout")


class LogOnce:
    """Logs what nobody expected, each kind once, so that a thread which others rely on goes on."""

    def __init__(self, where: str, *, but: tuple[type[Exception], ...] = ()) -> None:
        """Take the place for the log, and errors that are not unexpected: those pass through."""
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
            log.error("%s: unexpected, told once; it goes on", self._where, exc_info=error)
        return True
