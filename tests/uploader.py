"""A client that uploads, piece by piece."""

import socket
import threading
from array import array

MIB = 1024 * 1024
#: Bytes of one body that lie in Redis at most, in deployments with a small buffer.
BUFFER = MIB
CHUNKED = "Transfer-Encoding: chunked"


def content(size):
    """Return bytes in which a lost or doubled piece shows."""
    return array("Q", range(size // 8 + 1)).tobytes()[:size]


def pieces(data, size=10_000):
    return (data[start : start + size] for start in range(0, len(data), size))


class Uploader:
    """A client that sends what it is told to; the answer is read meanwhile."""

    def __init__(self, port, target, *headers):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=50)
        lines = (f"POST {target} HTTP/1.1", "Host: x", "Connection: close", *headers, "", "")
        self.sock.sendall("\r\n".join(lines).encode())
        self.sent = 0
        self._answer = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        try:
            while piece := self.sock.recv(65536):
                self._answer += piece
        except ConnectionResetError:
            pass

    def send(self, data):
        """Send until all is sent, or the other side wants no more; returns whether all was sent."""
        try:
            for piece in pieces(data, 65536):
                self.sock.sendall(piece)
                self.sent += len(piece)
        except (ConnectionResetError, BrokenPipeError):
            return False
        return True

    def stop_sending(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        """Break the connection off without a word (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.shutdown(socket.SHUT_RD)
        self._reader.join()
        self.sock.close()

    def answer(self):
        """Return all that came until the server closed."""
        self._reader.join()
        self.sock.close()
        return self._answer
