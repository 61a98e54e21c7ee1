"""A socket whose time limit the kernel keeps: to receive is one system call, and not a poll before it.

Around each system call Python gives up its global lock, for which the threads of a busy process wait.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from typing import Any


class TimedSocket(socket.socket):
    """A blocking socket with SO_RCVTIMEO and SO_SNDTIMEO in place of Python's own time limit.

    For threads other than the main one: Python waits anew, for the whole limit, after each signal.
    """

    _seconds: float | None = None

    def settimeout(self, value: float | None) -> None:
        """Set the limit of each call; None: there is none, 0: do not block."""
        super().settimeout(None if value else value)
        self._seconds = value or None
        micros = max(1, round(value * 1_000_000)) if value else 0  # 0: no limit
        packed = struct.pack("@ll", *divmod(micros, 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.setsockopt(socket.SOL_SOCKET, option, packed)

    def gettimeout(self) -> float | None:
        """Return the limit in seconds."""
        return self._seconds if self._seconds is not None else super().gettimeout()

    def recv_into(self, *args: Any) -> int:
        """Receive; raises `TimeoutError` at the limit."""
        try:
            return super().recv_into(*args)
        except BlockingIOError:
            self._tell_limit()
            raise

    def recv(self, *args: Any) -> bytes:
        """Receive; raises `TimeoutError` at the limit."""
        try:
            return super().recv(*args)
        except BlockingIOError:
            self._tell_limit(*args[1:])
            raise

    def sendall(self, *args: Any) -> None:
        """Send; raises `TimeoutError` where nothing could be sent within the limit."""
        try:
            super().sendall(*args)
        except BlockingIOError:
            self._tell_limit()
            raise

    def _tell_limit(self, flags: int = 0) -> None:
        if self._seconds is not None and not flags & socket.MSG_DONTWAIT:
            raise TimeoutError("timed out") from None


def timed(sock: Any) -> Any:
    """Return a socket as a `TimedSocket` where one can be used: on Linux, not with TLS, nor under gevent."""
    # By its module too: gevent and others put classes of their own in the place of Python's.
    plain = type(sock) is socket.socket and type(sock).__module__ == "socket"
    if sys.platform != "linux" or not plain:
        return sock
    if threading.current_thread() is threading.main_thread():
        return sock
    seconds = sock.gettimeout()
    found = TimedSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    found.settimeout(seconds)
    return found
