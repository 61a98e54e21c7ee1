"""gunicorn's response, sent by as few system calls as it takes."""

from __future__ import annotations

from typing import Any

from gunicorn.http.wsgi import Response

#: Larger blocks are sent by themselves: to copy them costs more than a system call.
_LARGEST = 64 * 1024


class OneSendResponse(Response):
    """Sends its head together with the first block of its body.

    gunicorn sends them one after the other: its client, or the proxy, wakes twice for a small response.
    """

    sock: Any
    headers_sent: bool

    def write(self, block: bytes) -> None:
        """Send a block of the body, and before the first one the head."""
        if self.headers_sent or not isinstance(block, bytes) or len(block) > _LARGEST:
            super().write(block)
            return
        sock, self.sock = self.sock, _Together()
        try:
            super().write(block)
        finally:
            together, self.sock = self.sock, sock
        sock.sendall(b"".join(together.parts))


class _Together:
    """Takes what is to be sent."""

    __slots__ = ("parts", "sendall")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.sendall = self.parts.append


def send_at_once(start_response: Any) -> None:
    """Have the response of a request under gunicorn leave at once; leave any other `start_response` alone."""
    response = getattr(start_response, "__self__", None)
    if type(response) is Response:  # not that of HTTP/2
        response.__class__ = OneSendResponse
