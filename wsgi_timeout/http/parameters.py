"""Finds our query parameters, however a client has encoded them.

A client may escape any letter of a name (`__wsgi_timeout%5fcall`), escape a whole URL that contains one
(`next=%2Fa%3F__wsgi_timeout_call%3D...`), or separate parameters by `;`. The parameters are cut out of the
raw text; the rest stays byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MARK = "__wsgi_timeout_"
CALL = MARK + "call"
HOP = MARK + "hop"
STATUS = MARK + "status"
OFFSET = MARK + "offset"

#: One character, plain or escaped any number of times: `_`, `%5F`, `%255F`.
_CHARACTER = re.compile(r"%(?:25)*([0-9A-Fa-f]{2})|.", re.DOTALL)
_ESCAPED_WSGI = re.compile(r"%(?:25)*(?:77|73|67|69)")
_OURS = MARK + r"""[a-z]*(?:=[^&;?#\s"'<>,\\)}\]]*)?"""
#: One or more of our parameters in a URL, with the separators before and after them.
_IN_URL = re.compile(rf"([?&;#]){_OURS}(?:[&;]{_OURS})*([&;]?)")
#: The same in a header, which may also have a query alone: nginx's `$args`, a script's `location.search`.
_IN_HEADER = re.compile(rf"(^|[?&;#]|(?<=[\s\"']))(?:{_OURS})(?:[&;]{_OURS})*([&;]?)")


def holds_ours(text: str) -> bool:
    """Return whether a text may contain a parameter of ours; fast, since it is asked for every header."""
    if MARK in text:
        return True
    # Any client may escape the underscores; the letters are escaped only to hide the name.
    hidden = "%" in text and ("wsgi" in text or _ESCAPED_WSGI.search(text) is not None)
    return hidden and MARK in decoded(text)


def decoded(text: str) -> str:
    """Return a text with all escapes decoded, also repeated ones."""
    return _CHARACTER.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[0], text)


def pairs(query: str) -> Iterator[tuple[str, str]]:
    """Yield name and value of each parameter of ours in a query."""
    for piece in query.split("&"):
        for pair in piece.split(";"):
            if _is_ours(pair):
                name, _, value = decoded(pair.partition("?")[0]).partition("=")
                yield name, value


def strip_query(query: str) -> str:
    """Return a query without our parameters, including those in URLs that are its values."""
    if not holds_ours(query):
        return query
    kept: list[str] = []
    for piece in query.split("&"):
        parts = piece.split(";")
        others = [part for part in parts if not _is_ours(part)]
        if others:
            kept.append(";".join(others))
        for part in parts:
            # A client that puts a query of its own behind any URL: `...hop=1?page=2`.
            appended = [text for text in part.split("?")[1:] if not _is_ours(text)] if _is_ours(part) else []
            if appended:
                kept[-1:] = ["?".join([*kept[-1:], *appended])]
    return _cut("&".join(kept), _IN_URL)


def strip(text: str) -> str:
    """Return a text with our parameters removed from its URLs, and no `?` left at a URL's end."""
    return _cut(text, _IN_HEADER)


def _cut(text: str, pattern: re.Pattern[str]) -> str:
    if not holds_ours(text):
        return text
    starts = [found.start() for found in _CHARACTER.finditer(text)] + [len(text)]
    kept, end = [], 0
    for found in pattern.finditer(decoded(text)):
        # Of the two separators around it the first one stays, if anything follows; else neither.
        first, last = (found.end(1), found.end()) if found[2] else (found.start(), found.end())
        kept.append(text[end : starts[first]])
        end = starts[last]
    return "".join(kept) + text[end:]


def _is_ours(pair: str) -> bool:
    return holds_ours(pair) and decoded(pair).startswith(MARK)
