"""A connection of our thread worker, which receives requests and does TLS handshakes without a thread."""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Any

from gunicorn import http
from gunicorn import sock as gunicorn_sock
from gunicorn.http.body import LengthReader
from gunicorn.workers import gthread

from wsgi_timeout.serving.paced_socket import PacedSocket
from wsgi_timeout.serving.put_off_line import Repeat
from wsgi_timeout.settings import Settings

_READ = 65_536


#: A `struct timeval`.
_TIMEVAL = struct.Struct("@ll")


class _ClientSocket(socket.socket):
    """A client's socket which takes no system call where gunicorn has it block again, for each request."""

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the socket's own
        if not flag or self.gettimeout() is not None:
            super().setblocking(flag)


class Connection(gthread.TConn):
    """A connection whose bytes gunicorn's parser reads at the client's least rate."""

    # gunicorn has no annotations.
    sock: Any
    parser: Any
    initialized: bool
    timeout: float

    def __init__(self, cfg: Any, sock: Any, client: Any, server: Any, settings: Settings) -> None:
        if type(sock) is socket.socket:
            sock = _ClientSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        super().__init__(cfg, sock, client, server)
        self._settings = settings
        self.paced = PacedSocket(sock, least_rate=settings.min_upload_rate)
        #: Whether it holds one of the places for uploads.
        self.uploads = False
        self.repeat: Repeat | None = None
        #: The TLS handshake was done without a thread.
        self._handshake_done = False

    def start_tls(self) -> None:
        """Use TLS on this connection; the handshake comes later. Raises `OSError`."""
        # The files are read now, since a certificate may have been renewed.
        context = gunicorn_sock.ssl_context(self.cfg)
        self.sock = context.wrap_socket(
            self.sock,
            server_side=True,
            suppress_ragged_eofs=self.cfg.suppress_ragged_eofs,
            do_handshake_on_connect=False,
        )
        self.paced = PacedSocket(self.sock, least_rate=self._settings.min_upload_rate)

    def without_blocking(self) -> None:
        """Have `receive` and `send` not block."""
        # Plain sockets get a flag with each call instead, since switching their mode takes system calls.
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send what can be sent at once; raises `OSError`."""
        self.sock.send(data, 0 if isinstance(self.sock, ssl.SSLSocket) else socket.MSG_DONTWAIT)

    def receive(self) -> bytes:
        """Return what has come; raises `BlockingIOError` if there is nothing, and other `OSError`s."""
        if not isinstance(self.sock, ssl.SSLSocket):
            return bytes(self.sock.recv(_READ, socket.MSG_DONTWAIT))
        try:
            if not self._handshake_done:
                self.sock.do_handshake()
                self._handshake_done = True
            return self.sock.recv(_READ) + self._decrypted()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error

    def receive_within(self, seconds: float) -> bytes | None:
        """Return what the client sends next, b"" if it closes; None if nothing comes within `seconds`.

        Not with TLS, where what has come may be no data; nor if there is data already. Raises `OSError`.
        """
        if isinstance(self.sock, ssl.SSLSocket) or self.paced.ahead or self.parser.unreader.buf.getvalue():
            return None
        if self.sock.gettimeout() is not None:
            return None  # the app has changed it
        # One blocking call, and no poll before it: after each a thread waits for Python's global lock.
        self._limit_reads(seconds)
        try:
            return bytes(self.sock.recv(_READ))
        except BlockingIOError:
            return None
        finally:
            self._limit_reads(0.0)

    def _limit_reads(self, seconds: float) -> None:
        """Have a blocking read end after `seconds`; 0: it has no limit."""
        limit = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)

    def _decrypted(self) -> bytes:
        """Return what TLS has received already, which `poll` does not show."""
        data = b""
        while isinstance(self.sock, ssl.SSLSocket) and (left := self.sock.pending()):
            data += self.sock.recv(left)
        return data

    def init(self) -> None:
        first = not self.initialized
        if first and self._handshake_done:
            self.initialized = True
            self.sock.setblocking(True)
            self.parser = http.get_parser(self.cfg, self.sock, self.client)
        else:
            super().init()
        if first and not self.is_http2:
            if self.cfg.is_ssl and not self._handshake_done:  # the TLS handshake has replaced the socket
                self.paced = PacedSocket(self.sock, least_rate=self._settings.min_upload_rate)
                self.paced.allow(self._settings.head_timeout)
            self.parser.unreader.sock = self.paced

    def body_is_read(self) -> bool:
        """Return whether the current request's body, of a known length, was read to its end."""
        body = self.parser.mesg.body
        return isinstance(body.reader, LengthReader) and body.reader.length == 0 and not body.failed

    def leftover(self) -> bytes:
        """Return, and forget, bytes of a next request that were read already."""
        return bytes(self.parser.unreader.take_buffered()) + self.paced.take_ahead() + self._decrypted()
