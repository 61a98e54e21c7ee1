"""What the pure tests of WSGI responses share."""

import io
import sys
from wsgiref.util import setup_testing_defaults

from wsgi_timeout.http.environ import capture, restore

TEXT = [("Content-Type", "text/plain")]


class Record:
    """A sink that keeps what it is given, in order."""

    def __init__(self):
        self.events = []

    def begin(self, head):
        self.events.append(head)

    def write(self, chunk, *, last):
        self.events.append((chunk, last))

    @property
    def more(self):
        return (lambda chunk: self.events.append((chunk, False))) if self.events else None

    def end(self):
        self.events.append("end")

    @property
    def body(self):
        return b"".join(event[0] for event in self.events if isinstance(event, tuple))


def an_environ(method="GET"):
    environ = {}
    setup_testing_defaults(environ)
    environ["REQUEST_METHOD"] = method
    return restore(capture(environ), io.BytesIO(), sys.stderr, multithread=False)
