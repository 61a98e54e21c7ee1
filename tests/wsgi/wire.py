"""HTTP as it comes over a socket: what a client can tell of an answer, also of one that breaks off."""

import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Wire:
    """One response: `complete` is False where its framing shows that its end is missing."""

    status: bytes
    headers: tuple
    body: bytes
    complete: bool

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name), None)


def exchange(port, data, *, timeout=20.0):
    """Send bytes on a connection of their own; return all that comes until the server closes it."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
        try:
            sock.sendall(data)
            while piece := sock.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    return answer


def request(target=b"/", method=b"GET", headers=(), body=b"", version=b"1.1"):
    """Return a request, byte for byte; the connection ends with it."""
    lines = [
        b"%b %b HTTP/%b" % (method, target, version),
        b"Host: odd.example",
        b"Connection: close",
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def parse(raw, *, head=False):
    """Return what a client reads (RFC 9112 section 6.3), but for the headers Date and Server."""
    top, separator, rest = raw.partition(b"\r\n\r\n")
    if not separator:
        return Wire(top, (), rest, complete=False)
    status, *lines = top.split(b"\r\n")
    pairs = tuple(tuple(line.split(b": ", 1)) for line in lines)
    headers = tuple(pair for pair in pairs if pair[0] not in {b"Date", b"Server"})
    found = {pair[0].lower(): pair[-1] for pair in headers}
    if head or status.split()[1] in {b"204", b"304"}:
        return Wire(status, headers, rest, complete=not rest)
    if found.get(b"transfer-encoding") == b"chunked":
        body, complete = _chunks(rest)
        return Wire(status, headers, body, complete)
    length = found.get(b"content-length")
    return Wire(status, headers, rest, length is None or len(rest) == int(length))


def _chunks(data):
    pieces, start = [], 0
    while True:
        line = data.find(b"\r\n", start)
        if line < 0:
            return b"".join(pieces), False
        length = int(data[start:line], 16)
        if length == 0:
            return b"".join(pieces), data[line:] == b"\r\n\r\n"
        start, end = line + 2, line + 2 + length
        pieces.append(data[start:end])
        if data[end : end + 2] != b"\r\n":
            return b"".join(pieces), False
        start = end + 2
