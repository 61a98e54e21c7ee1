"""Makes text from clients safe for logs: on one line, without terminal escapes and without our tokens."""

from __future__ import annotations

import re

from wsgi_timeout.http.urls import TOKEN

#: Characters of an id or a token, plain or escaped any number of times, as in `_`, `%5F`, `%255F`.
_SYMBOLS = r"(?:[\w-]{1,8}|%(?:25)*(?:2[Dd]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff])){1,40}"
#: An id with its token, whatever stands before it: our parameter in any spelling, an event's id, a cookie.
#: Without backtracking, since clients choose what is logged: what a lookahead has matched stays as it is.
_ID_AND_TOKEN = re.compile(
    r"(?P<shown>(?:f|%(?:25)*66)(?:c|%(?:25)*63)(?:-|%(?:25)*2[Dd])(?=[\w%-]{8})"
    rf"(?=(?P<id>{_SYMBOLS}))(?P=id))(?:\.|%(?:25)*2[Ee])(?=[\w%-]{{16}})(?=(?P<token>{_SYMBOLS}))(?P=token)",
    re.ASCII,
)
# C0, DEL and C1 control characters (also as bytes of UTF-8 read as Latin-1), and Unicode's line ends.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    r"""Return the text with control characters as escapes, `\x0a` for a line feed."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def without_token(text: str) -> str:
    """Return the text without the tokens of our URLs: whoever has a token can read the result."""
    if "fc-" not in text and "%" not in text and "wsgi_timeout" not in text:
        return text
    return _ID_AND_TOKEN.sub(r"\g<shown>.-", TOKEN.sub(r"\1.-", text))
