"""A request on a result URL for which there is no place now: it waits without a thread where that can be."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

#: In the environ, by a server that can run the request again: the seconds for which it was put off so far.
PUT_OFF_KEY = "wsgi_timeout.put_off"
#: Seconds that it is held back where the server cannot.
_FULL_SECONDS = 1.0


class PutOff(BaseException):
    """The server shall run this request again in a moment; not an `Exception`: no app's handler is meant."""


def hold_back(environ: Mapping[str, Any], most_seconds: float) -> None:
    """Let a client wait before it is redirected: clients follow so many redirects only.

    Raises:
        PutOff: the server runs the request again; not after `most_seconds`.
    """
    so_far = environ.get(PUT_OFF_KEY)
    if so_far is None:
        time.sleep(_FULL_SECONDS)
    elif so_far < most_seconds:
        raise PutOff
