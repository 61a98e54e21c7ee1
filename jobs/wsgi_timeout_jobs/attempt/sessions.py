"""Sees the sign of sessions that an app keeps in the memory of one process.

Several worker processes then lose each other's sessions: a client comes with the session id that another
process has given it, this one does not know it, and sets a new one, on every request. A login never lasts.

A cookie that is new each time by right, a login, and an id of yesterday look alike at first. So all of this
must be seen: the process that has set an id keeps it, more often than by chance, and never replaces it, and
one client's id was replaced several times by processes that had not set it. Rather no line than a wrong one.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping

from wsgi_timeout.http.printable import printable
from wsgi_timeout.store.messages import ResponseHead
from wsgi_timeout_jobs.process.cookie_table import CookieTable, Counts

log = logging.getLogger("wsgi_timeout.worker")

#: An id is short and without a dot; a session that is the cookie itself, signed, is new each time by right.
_ID = re.compile(r"[A-Za-z0-9_+/=-]{6,80}")
#: Replacements of one client's id, one after another, that tell it.
_TIMES = 4
#: Requests with an id that was kept by the process that had set it.
_KEPT = 4
#: How likely it may be that those were kept by chance.
_CHANCE = 1e-4
#: Seconds that a process in doubt stands aside, and how often those of a pool do it at most.
_ASIDE_SECONDS = 3.0
_ASIDES = 20
#: What is no page: the app may not have looked at the session.
_NO_PAGE = re.compile(r"(image|font|video|audio)/|text/css|\w+/javascript", re.IGNORECASE)
#: Cookies of one request that are looked at.
_MOST = 20


class SessionSigns:
    """Looks at the cookies of one worker process' responses; all processes of a pool speak once."""

    def __init__(self, table: CookieTable, *, process: int = 0) -> None:
        """Share `table` with the other processes; `process` is this one's pid by default."""
        self._table = table
        self._process = process or os.getpid()
        #: The cookie in doubt, and until when no call is to be taken, in monotonic seconds.
        self._doubt, self._aside_until = "", 0.0

    def look(self, environ: Mapping[str, str], head: ResponseHead) -> None:
        """Look at one response, and log a line at the sign."""
        if self._table.said:
            return
        now = dict(_cookies_set(head))
        for name, before in _cookies_sent(environ.get("HTTP_COOKIE", "")):
            if _ID.fullmatch(before):
                after = now.pop(name, before)
                if after != before:
                    self._replaced(name, before, after)
                elif _is_a_page(head):
                    self._kept(name, before)
        for name, value in now.items():
            self._set(name, value, 0)

    def stands_aside(self) -> bool:
        """Return whether this process should take no call now, so that another one takes the next ones.

        Idle processes take turns. Of one client that sends request after request none gets two in a row, and
        none sees its own cookie again, unless the others let it.
        """
        if not self._aside_until:
            return False
        over = time.monotonic() > self._aside_until or _is_known(self._table.counts(self._doubt))
        self._aside_until = 0.0 if over else self._aside_until
        return not over

    def _kept(self, name: str, value: str) -> None:
        """Note that the app knew an id, or did not look."""
        cookie, counts = self._table.find(name, value), self._table.counts(name)
        if cookie is None:  # of another pool, or of long ago
            return
        if cookie.process == self._process:
            counts.kept += 1
        else:
            counts.kept_by_another += 1
            self._table.note(name, value, 0, cookie.process)
        self._table.count(name, counts)

    def _replaced(self, name: str, before: str, after: str) -> None:
        cookie, counts = self._table.find(name, before), self._table.counts(name)
        if cookie is None:
            self._set(name, after, 0)
            return
        if cookie.process == self._process:
            counts.replaced += 1
        else:
            counts.replaced_by_another += 1
        self._table.count(name, counts)
        self._set(name, after, cookie.replacements + 1)
        if cookie.replacements + 1 < _TIMES:
            return
        if _is_sure(counts):
            self._speak(name, cookie.replacements + 1)
        elif not _is_known(counts) and self._table.may_stand_aside(_ASIDE_SECONDS, _ASIDES):
            self._doubt, self._aside_until = name, time.monotonic() + _ASIDE_SECONDS

    def _set(self, name: str, value: str, replacements: int) -> None:
        if not _ID.fullmatch(value):
            return
        if self._table.find(name, value):  # set again: it names the process, say, or a language
            counts = self._table.counts(name)
            counts.replaced += 1
            self._table.count(name, counts)
        else:
            self._table.note(name, value, replacements, self._process)

    def _speak(self, name: str, times: int) -> None:
        self._table.said = True
        log.warning(
            "the cookie %s that another process had set for a client was set anew, %d times one after "
            "another: an app that keeps sessions in memory needs one process, --processes 1 --threads 8",
            printable(name),
            times,
        )


def _is_known(counts: Counts) -> bool:
    """Return whether it is known what the process that has set an id does with it."""
    return counts.replaced > 0 or counts.kept >= _KEPT


def _is_sure(counts: Counts) -> bool:
    if counts.replaced or counts.kept < _KEPT:
        return False
    # If all processes replace as often as the others' are replaced: how likely is it that none was?
    elsewhere = counts.kept_by_another / (counts.kept_by_another + counts.replaced_by_another)
    return elsewhere**counts.kept < _CHANCE


def _is_a_page(head: ResponseHead) -> bool:
    types = [value for name, value in head.headers if name.lower() == "content-type"]
    return head.status.startswith("200") and not any(map(_NO_PAGE.match, types))


def _cookies_set(head: ResponseHead) -> Iterator[tuple[str, str]]:
    for header, text in head.headers:
        if header.lower() == "set-cookie":
            yield from _pairs([text.partition(";")[0]])


def _cookies_sent(text: str) -> Iterable[tuple[str, str]]:
    return _pairs(text.split(";", _MOST)[:_MOST]) if text else ()


def _pairs(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, _, value = text.partition("=")
        yield name.strip(), value.strip().strip('"')
