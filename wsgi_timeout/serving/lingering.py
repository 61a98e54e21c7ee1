"""Closes a connection after reading from it for a moment, without blocking (RFC 9112 section 9.6)."""

from __future__ import annotations

import socket
import time
from typing import Any

#: Seconds and bytes for which a closed connection is still read, as in gunicorn's `close_graceful`.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 65_536


class Lingering:
    """A connection on which the last answer was sent, and which waits for the client to close it."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn
        self.deadline = time.monotonic() + _LINGER_SECONDS
        self.closed = False
        self._left = _LINGER_BYTES
        conn.sock.setblocking(False)
        conn.sock.shutdown(socket.SHUT_WR)

    def read_on(self) -> bool:
        """Read what has arrived; return True if the connection can be closed."""
        try:
            data = self.conn.sock.recv(_LINGER_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self._left -= len(data)
        return not data or self._left <= 0
