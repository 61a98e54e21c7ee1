"""What the contract's tests share: the waits of its web processes, and raw requests."""

import re

GEVENT = "wsgi_timeout.gunicorn_gevent.GeventWorker"

#: Seconds after which the deployment of this module redirects.
WAIT = 0.3


#: More than one wait, by what a busy machine may be late.
SLOW = "seconds=1"


#: Settings of what is to be answered at once, however busy the machine is.
AMPLE = {"wait_seconds": 20, "timeout": 20}


def undated(raw):
    """Return a raw response without what differs between any two: the date, and the order of a set."""
    return re.sub(rb"\r\n(Date|Allow): [^\r]*", b"", raw)


def get(target, method="GET", *more):
    lines = (f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *more, "", "")
    return "\r\n".join(lines).encode()
