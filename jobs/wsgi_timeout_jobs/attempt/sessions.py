"""Sees the sign of sessions that an app keeps in the memory of one process.

Several worker processes then lose each other's sessions: a client comes with the session id that another
process has given it, this one does not know it, and sets a new one, on every request. A login never lasts.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TypeVar

from wsgi_timeout.http.printable import printable
from wsgi_timeout.store.messages import ResponseHead

log = logging.getLogger("wsgi_timeout.worker")

T = TypeVar("T")
V = TypeVar("V")

#: Names of cookies that hold the id of a session: session, PHPSESSID, sid, connect.sid.
_NAME = re.compile(r"sess|(?:^|[._-])sid$", re.IGNORECASE)
_MAYBE = re.compile("sess|sid", re.IGNORECASE)
#: An id is short and without a dot; a session that is the cookie itself, signed, is new each time by right.
_ID = re.compile(r"[A-Za-z0-9_+/=-]{6,64}")
#: Requests of one client, one after another, that tell it: one alone may be from before a restart.
_TIMES = 3
#: Seconds within which they come: people log in again, too.
_WITHIN = 600
#: What tells clients apart.
_CLIENT = ("REMOTE_ADDR", "HTTP_X_FORWARDED_FOR", "HTTP_USER_AGENT")
#: Clients and ids that are remembered.
_MOST = 2000


class SessionSigns:
    """What one worker process saw of the cookies that its app sets; it speaks once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: OrderedDict[str, None] = OrderedDict()
        #: When the cookie of a client was replaced, one time after another.
        self._replaced: OrderedDict[tuple[str, ...], list[float]] = OrderedDict()
        #: Cookies that are new each time by right.
        self._renewed: set[str] = set()
        self._said = False

    def look(self, environ: Mapping[str, str], head: ResponseHead) -> None:
        """Look at one response, and log a line at the sign."""
        if self._said:
            return
        now = {name: value for name, value in _cookies_set(head) if _NAME.search(name)}
        sent = _parsed(environ.get("HTTP_COOKIE", ""))
        if not now and not sent:
            return
        with self._lock:
            for name, before in sent.items():
                if _NAME.search(name) and _ID.fullmatch(before):
                    self._compare(name, before, now.get(name, before), environ, head)
            for value in now.values():
                _remember(self._given, value, None)

    def _compare(
        self, name: str, before: str, after: str, environ: Mapping[str, str], head: ResponseHead
    ) -> None:
        client = (name, *(environ.get(key, "") for key in _CLIENT))
        if before == after:
            if _is_a_page(head):  # the app knew that session; what is no page may not have looked
                self._replaced.pop(client, None)
            return
        if before in self._given:
            self._renewed.add(name)  # of this process, and replaced all the same
        if name not in self._renewed and _ID.fullmatch(after):
            self._was_replaced(name, client)

    def _was_replaced(self, name: str, client: tuple[str, ...]) -> None:
        now = time.monotonic()
        times = [at for at in self._replaced.get(client, ()) if now - at < _WITHIN]
        _remember(self._replaced, client, [*times, now])
        if len(times) + 1 >= _TIMES:
            self._said = True
            log.warning(
                "the cookie %s that another process had set for a client was set anew %d times: an app that "
                "keeps sessions in memory needs one process, --processes 1 --threads 8",
                printable(name),
                _TIMES,
            )


def _is_a_page(head: ResponseHead) -> bool:
    types = [value.lower() for name, value in head.headers if name.lower() == "content-type"]
    return head.status.startswith("200") and any("html" in each or "json" in each for each in types)


def _remember(where: OrderedDict[T, V], key: T, value: V) -> None:
    where[key] = value
    where.move_to_end(key)
    while len(where) > _MOST:
        where.popitem(last=False)


def _cookies_set(head: ResponseHead) -> Iterable[tuple[str, str]]:
    for header, text in head.headers:
        if header.lower() == "set-cookie":
            name, _, value = text.partition(";")[0].partition("=")
            yield name.strip(), value.strip().strip('"')


def _parsed(text: str) -> dict[str, str]:
    if not text or not _MAYBE.search(text):  # parsing costs more than looking
        return {}
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(text).items()}
    except CookieError:
        return {}
