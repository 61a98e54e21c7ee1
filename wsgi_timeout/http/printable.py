"""Text of clients in logs: on one line, without escapes of terminals, and without our tokens."""

from __future__ import annotations

import re

from wsgi_timeout.http.urls import TOKEN

# C0, DEL and C1 (RFC 3629 bytes read as Latin-1 too), and what Unicode calls a line's end.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(text: str) -> str:
    r"""Return the text with control characters as escapes, `\x0a` for a line feed."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def without_token(text: str) -> str:
    """Return the text without the tokens of our URLs: a token is all that is needed to read the result."""
    return TOKEN.sub(r"\1.-", text)
