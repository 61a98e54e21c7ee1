"""One thread's conversation with the worker: a call at a time, PEP 3333 as `app_host.py` keeps it."""

import errno
import io
import os
import re
import select
import struct
import sys
import threading
import traceback

from app_host_parts import (
    HEADER,
    MOST,
    CallInterrupted,
    FileWrapper,
    RequestBody,
    RunningCall,
    SmallBody,
    UploadBroken,
    encoded,
    end_here,
    frame,
    leave,
    pack,
    unpack,
)

PY2 = sys.version_info[0] == 2
TEXT = (str, type(u"")) if PY2 else (str,)  # fmt: skip

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
STATUS = re.compile(r"[2-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?\Z")


class Connection(object):  # noqa: UP004
    """One thread's conversation with the worker."""

    def __init__(self, host, descriptor, shield):
        self.host = host
        self.descriptor = descriptor
        self.shield = shield
        self.lock = threading.Lock()
        self.buffer = b""
        self.poll = select.poll()
        self.poll.register(descriptor, select.POLLIN)
        self.begin()

    def begin(self):
        self.head = None
        self.sent = False
        self.closing = False
        self.held = b""

    def serve(self):
        """Run calls until the worker closes the connection."""
        while True:
            found = self.receive()
            if found is None:
                return
            kind, payload = found
            if kind == b"C":
                self.begin()
                self.run(payload)

    # frames

    def send(self, kind, payload=b"", flush=True):
        """Send a frame; a process that the app forked ends here instead."""
        if os.getpid() != self.host.pid:
            end_here(sys.exc_info()[1])
        with self.lock, self.shield:
            self.held += frame(kind, payload)
            if flush:
                data, self.held = memoryview(self.held), b""
                while data:
                    data = data[write(self.descriptor, data) :]

    def receive(self):
        """Return the next frame, None when the worker is gone."""
        with self.shield:
            while len(self.buffer) < HEADER.size or len(self.buffer) < self.wanted():
                piece = read(self.descriptor)
                if not piece:
                    return None
                self.buffer += piece
            end = self.wanted()
            kind, payload = self.buffer[:1], self.buffer[HEADER.size : end]
            self.buffer = self.buffer[end:]
            # Within the shield: an interrupt right after it must not make it forgotten.
            self.closing = self.closing or kind == b"X"
            return kind, payload

    def wanted(self):
        return HEADER.size + HEADER.unpack_from(self.buffer)[1]

    def is_closing(self):
        """Whether the worker wants no more of this response."""
        if not self.closing and (self.buffer or self.poll.poll(0)):
            self.closing = self.receive() is None or self.closing
        return self.closing

    def read_body(self, size):
        self.send(b"N", struct.pack("!I", min(size, MOST)))
        found = self.receive()
        kind, payload = found or (b"X", b"")
        if kind == b"I":
            return payload
        if kind == b"B":
            raise UploadBroken(payload.decode("utf-8", "replace"))
        self.closing = True
        raise CallInterrupted("the call has ended")

    # a call

    def run(self, payload):
        texts, body = unpack(payload)
        environ = self.environ(texts, body)
        closable = []
        self.guarded(lambda: self.respond(environ, closable), closable, b"A")
        close = getattr(closable[0], "close", None) if closable else None
        if not close:
            return
        while not self.closing:
            self.closing = self.receive() is None or self.closing
        self.guarded(lambda: (close(), (b"Z", pack([])))[1], closable, b"Z")

    def guarded(self, work, closable, failed):
        """Run app code, and send the last frame that it returns; whatever it raises goes to the worker."""
        interrupts = self.host.interrupts
        try:
            try:
                interrupts.asked, interrupts.armed = False, True
                last = work()
            finally:
                interrupts.armed = False
            self.send(*last)  # when no interrupt can add another last frame
        except:  # noqa: E722 - Python 2 can raise what is no exception
            kind, error = sys.exc_info()[:2]
            if os.getpid() != self.host.pid:
                if not isinstance(error, SystemExit):
                    traceback.print_exc()
                end_here(error)
            lines = "".join(traceback.format_exception(*sys.exc_info()))
            interrupted = "1" if isinstance(error, CallInterrupted) else ""
            self.send(failed, pack([flag(closable), interrupted, kind.__name__, text_of(error), lines]))

    def environ(self, texts, body):
        call_id, attempt, small = texts[:3]
        environ = dict(zip(texts[3::2], texts[4::2]))
        call = RunningCall(call_id, int(attempt), self.host.reports)
        environ.update(
            {
                "wsgi.version": (1, 0),
                "wsgi.input": SmallBody(body) if small else io.BufferedReader(RequestBody(self), 65536),
                "wsgi.input_terminated": True,
                "wsgi.errors": sys.stderr,
                "wsgi.file_wrapper": FileWrapper,
                "wsgi.multithread": self.host.threads > 1,
                "wsgi.multiprocess": True,
                "wsgi.run_once": False,
                "wsgi_timeout.call": call,
                "wsgi_timeout.progress": call.progress,
                "wsgi_timeout.in_place": True,
            }
        )
        return environ

    def respond(self, environ, closable):
        iterable = self.host.app(environ, self.start_response)
        if isinstance(iterable, (bytes, type(u""))) or iterable is None:  # fmt: skip
            raise TypeError("the app returned %s, not an iterable of bytes" % type(iterable).__name__)
        closable.append(iterable)
        if isinstance(iterable, (list, tuple)) and self.is_short(iterable):
            self.begin_response()
            return b"L", pack([flag([iterable]).encode()] + list(iterable))
        self.send(b"T", flush=False)
        for chunk in iterable:
            self.pass_on(chunk)
            if self.is_closing():
                break
        else:
            self.begin_response()
        return b"E", encoded(flag(closable))

    def is_short(self, chunks):
        """Whether to send a list whole, so that its last chunk is known to be it."""
        if self.sent or not all(isinstance(chunk, bytes) for chunk in chunks):
            return False
        return sum(map(len, chunks)) <= MOST

    def start_response(self, status, headers, exc_info=None):
        if exc_info:
            try:
                if self.sent:
                    reraise(exc_info)
            finally:
                exc_info = None  # no reference cycle through the traceback
        elif self.head is not None:
            raise AssertionError("start_response was called a second time, without exc_info")
        headers = list(headers)
        check(status, headers)
        self.head = pack([encoded(status)] + [encoded(text) for item in headers for text in item])
        return self.write

    def write(self, chunk):
        if self.is_closing():
            raise CallInterrupted("the call has ended")
        self.pass_on(chunk)

    def pass_on(self, chunk):
        if not isinstance(chunk, bytes):
            raise TypeError("the app gave a chunk of type %s, not bytes" % type(chunk).__name__)
        if not chunk:
            return
        self.begin_response()
        for at in range(0, len(chunk), MOST):
            self.send(b"D", chunk[at : at + MOST])

    def begin_response(self):
        if self.head is None:
            raise AssertionError("the app did not call start_response before its first byte or its end")
        if not self.sent:
            self.sent = True
            self.send(b"H", self.head, flush=False)


def read(descriptor):
    """Return what is there, empty when the worker is gone; Python 2 ends a read at any signal."""
    while True:
        try:
            return os.read(descriptor, MOST)
        except OSError as error:
            if error.errno == errno.ECONNRESET:
                return b""
            if error.errno != errno.EINTR:
                raise


def write(descriptor, data):
    """Write some of the data; return how much."""
    while True:
        try:
            return os.write(descriptor, data)
        except OSError as error:
            if error.errno == errno.EPIPE:
                leave(1)  # the worker is gone
            if error.errno != errno.EINTR:
                raise


def flag(closable):
    return "1" if closable and hasattr(closable[0], "close") else ""


def text_of(error):
    try:
        return str(error)
    except Exception:  # noqa: BLE001
        return "(no text)"


def reraise(exc_info):
    if PY2:
        exec("raise exc_info[0], exc_info[1], exc_info[2]")  # noqa: S102 - no syntax of Python 3
    raise exc_info[1].with_traceback(exc_info[2])


def check(status, headers):
    """Refuse here, where the app sees the error, what a server would refuse after the app is done."""
    if not isinstance(status, TEXT) or not STATUS.match(status):
        raise ValueError("status %r: must be text like '200 OK'" % (status,))
    for item in headers:
        name, value = item
        if not isinstance(name, TEXT) or not isinstance(value, TEXT):
            raise TypeError("header %r: name and value must be str" % (item,))
        if not NAME.match(name):
            raise ValueError("header name %r: not a token (RFC 9110 section 5.6.2)" % name)
        if CONTROL.search(value):
            raise ValueError(
                "header %s: value %r holds CR, LF or NUL, or another control character" % (name, value)
            )
        encoded(value)
        if name.lower() == "content-length":
            int(value)
