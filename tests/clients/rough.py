"""A server that answers as it is told, byte for byte, and notes what it was asked."""

import contextlib
import socket
import threading


class Rough:
    """Answers each request with the next of `answers`: bytes, after which the connection is closed.

    The last answer is given again to whoever comes after it. Pieces of one wait for `go` between them.
    """

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.go = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                with client, contextlib.suppress(OSError):
                    self._answer(client)

    def _answer(self, client):
        request = b""
        while b"\r\n\r\n" not in request:
            piece = client.recv(65536)
            if not piece:
                return
            request += piece
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        for number, piece in enumerate(answer if isinstance(answer, tuple) else (answer,)):
            if number:
                self.go.wait(20)
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            client.settimeout(2)
            while client.recv(65536):
                pass

    def lines(self):
        """Return the first line of each request."""
        return [request.split(b"\r\n")[0].decode() for request in self.requests]

    def header(self, number, name):
        """Return a header of a request as bytes, None if it has none."""
        for line in self.requests[number].split(b"\r\n"):
            key, _, value = line.partition(b": ")
            if key.lower() == name.lower().encode():
                return value
        return None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)


def ok(body, *headers, length=None):
    """Return a whole answer, or one that breaks off before `length` bytes."""
    lines = ("HTTP/1.1 200 OK", *headers, "Connection: close", f"Content-Length: {length or len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body


def events(*pieces):
    """Return an event stream that ends when its connection does."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    return (head + pieces[0], *pieces[1:])


def redirect(url, status="302 Found"):
    head = f"HTTP/1.1 {status}\r\nLocation: {url}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    return head.encode()
