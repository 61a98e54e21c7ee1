"""Sees the sign of sessions that an app keeps in the memory of one process.

Several worker processes then lose each other's sessions: a client comes with the session id that another
process has given it, this one does not know it, and sets a new one, on every request. A login never lasts.

A cookie that is new each time by right, a login, and an id of yesterday look alike at first. So all of this
must be seen: no process replaces an id that it has set itself, and one client's id was replaced several times
by processes that had not set it. Where an id was kept by its own process, more often than by chance, a few
such replacements are enough. Rather no line than a wrong one.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping

from wsgi_timeout.http.printable import printable
from wsgi_timeout.store.messages import ResponseHead
from wsgi_timeout_jobs.process.cookie_table import CookieTable, Counts

log = logging.getLogger("wsgi_timeout.worker")

#: An id is short and without a dot; a session that is the cookie itself, signed, is new each time by right.
_ID = re.compile(r"[A-Za-z0-9_+/=-]{6,80}")
#: Replacements of one client's id, one after another, that tell it.
_TIMES = 4
#: The same for each process, where the one that has set an id may not have seen it again: idle processes take
#: turns, so that of one client that sends request after request none gets two in a row.
_TIMES_UNSEEN = 5
#: Requests with an id that was kept by the process that had set it.
_KEPT = 4
#: How likely it may be that those were kept by chance.
_CHANCE = 1e-4
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
        times = cookie.replacements + 1
        if counts.replaced or times < _TIMES:
            return
        if times >= _TIMES_UNSEEN * self._table.processes or _is_no_chance(counts):
            self._speak(name, times)

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


def _is_no_chance(counts: Counts) -> bool:
    if counts.kept < _KEPT:
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
