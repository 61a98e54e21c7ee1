"""Makes text from clients safe for logs: on one line, without terminal escapes and without our tokens."""

from __future__ import annotations

import re

from wsgi_timeout.http.urls import TOKEN

# C0, DEL and C1 control characters (also as bytes of UTF-8 read as Latin-1), and Unicode's line ends.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    r"""Return the text with control characters as escapes, `\x0a` for a line feed."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def without_token(text: str) -> str:
    """Return the text without the tokens of our URLs: whoever has a token can read the result."""
    return TOKEN.sub(r"\1.-", text)
