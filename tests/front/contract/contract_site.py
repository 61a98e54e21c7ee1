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


def unframed(raw):
    """Return a raw response with the data of its chunks in one piece: what is written fast may share one."""
    head, mark, rest = raw.partition(b"\r\n\r\n")
    if b"\r\nTransfer-Encoding: chunked" not in head:
        return raw
    data = b""
    while match := re.match(rb"([0-9A-Fa-f]+)\r\n", rest):
        size = int(match[1], 16)
        data += rest[match.end() : match.end() + size]
        rest = rest[match.end() + size + 2 :]
        if not size:
            return head + mark + data + b"(end)"
    return head + mark + data


def get(target, method="GET", *more):
    lines = (f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *more, "", "")
    return "\r\n".join(lines).encode()
