"""One thread's conversation with the worker: a call at a time, PEP 3333 as `app_host.py` keeps it."""

import errno
import io
import marshal
import os
import select
import struct
import sys
import threading
import traceback

from app_host_parts import (
    HEAD,
    HEADER,
    MOST,
    CallInterrupted,
    RequestBody,
    RunningCall,
    SmallBody,
    UploadBroken,
    check,
    encoded,
    end_here,
    frame,
    joined,
    leave,
    native,
    natives,
    pack,
)

PY2 = sys.version_info[0] == 2
#: Bytes of a usual read: malloc maps larger ones anew each time.
AT_ONCE = 32 * 1024


class Connection(object):  # noqa: UP004
    """One thread's conversation with the worker."""

    def __init__(self, host, descriptor):
        self.host = host
        self.descriptor = descriptor
        self.interrupts = host.interrupts
        self.lock = threading.Lock()
        self.buffer = b""
        self.poll = select.poll()
        self.poll.register(descriptor, select.POLLIN)
        self.begin()

    def begin(self):
        self.head = None
        self.sent = False
        self.closing = False
        self.length = None
        self.whole = False
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

    def send(self, kind, payload=b"", before=b""):
        """Send a frame, with others before it; a process that the app forked ends here instead."""
        if os.getpid() != self.host.pid:
            end_here(sys.exc_info()[1])
        data = before + frame(kind, payload)
        # While `busy`, no interrupt is raised: it would cut a frame off. Not a context manager, whose calls
        # are a tenth of what a small call costs here.
        self.interrupts.busy += 1
        try:
            with self.lock:
                sent = write(self.descriptor, data)
                while sent < len(data):
                    sent += write(self.descriptor, memoryview(data)[sent:])
        finally:
            self.interrupts.over()

    def receive(self):
        """Return the next frame, None when the worker is gone."""
        self.interrupts.busy += 1
        try:
            while len(self.buffer) < HEADER.size or len(self.buffer) < self.wanted():
                missing = self.wanted() - len(self.buffer) if len(self.buffer) >= HEADER.size else 0
                piece = read(self.descriptor, max(missing, AT_ONCE))
                if not piece:
                    return None
                self.buffer += piece
            end = self.wanted()
            kind, payload = self.buffer[:1], self.buffer[HEADER.size : end]
            self.buffer = self.buffer[end:]
            # Set here, since an interrupt that comes next must not lose it.
            self.closing = self.closing or kind == b"X"
            return kind, payload
        finally:
            self.interrupts.over()

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
        inner, call = marshal.loads(payload)  # noqa: S302 - the worker has written it
        app = self.host.inner if inner else self.host.app
        environ, closable = self.environ(*call), []
        self.guarded(lambda: self.respond(app, environ, closable), closable, b"A")
        close = getattr(closable[0], "close", None) if closable else None
        if close:
            while not self.whole and not self.closing:
                self.closing = self.receive() is None or self.closing
            self.guarded(lambda: self.closed(close), closable, b"Z")

    def guarded(self, work, closable, failed):
        """Run app code, and send the last frame that it returns; whatever it raises goes to the worker."""
        interrupts = self.interrupts
        try:
            try:
                interrupts.asked, interrupts.armed = False, True
                last = work()
            finally:
                interrupts.armed = False
            if last:
                self.send(*last)  # when no interrupt can add another last frame
        except:  # noqa: E722 - Python 2 can raise what is no exception
            kind, error = sys.exc_info()[:2]
            if os.getpid() != self.host.pid:
                if not isinstance(error, SystemExit):
                    traceback.print_exc()
                end_here(error)
            lines = "".join(traceback.format_exception(*sys.exc_info()))
            interrupted = "1" if isinstance(error, CallInterrupted) else ""
            parts = [flag(closable), interrupted, kind.__name__, text_of(error), lines]
            self.send(failed, pack(parts), self.held)

    def environ(self, call_id, attempt, body, texts):
        environ = natives(texts)
        call = RunningCall(native(call_id), attempt, self.host.reports)
        large = body is None
        environ["wsgi.input"] = io.BufferedReader(RequestBody(self), 65536) if large else SmallBody(body)
        environ["wsgi.errors"] = sys.stderr
        environ["wsgi_timeout.call"] = call
        environ["wsgi_timeout.progress"] = call.progress
        environ.update(self.host.in_every_environ)
        return environ

    def respond(self, app, environ, closable):
        iterable = app(environ, self.start_response)
        if isinstance(iterable, (bytes, type(u""))) or iterable is None:  # fmt: skip
            raise TypeError("the app returned %s, not an iterable of bytes" % type(iterable).__name__)
        if callable(iterable) and not (hasattr(iterable, "__iter__") or hasattr(iterable, "__getitem__")):
            raise TypeError(
                "the app returned %r, not an iterable of bytes: if that is an app, the target is a factory, "
                "to be called in it, as in shop:create_app()" % (iterable,)
            )
        closable.append(iterable)
        if isinstance(iterable, (list, tuple)) and self.is_short(iterable):
            return b"L", pack([flag(closable).encode()] + list(iterable)), self.opening()
        for chunk in iterable:
            self.pass_on(b"D", chunk)
            if not self.whole and self.is_closing():
                break
        last = encoded(flag(closable))
        if self.whole and last:
            self.held = frame(b"E", last)  # sent with the Z: the worker knows already
            return None
        return b"E", last, self.opening()

    def closed(self, close):
        close()
        return b"Z", pack([]), self.held

    def is_short(self, chunks):
        """Whether to send a list as a whole, so that the worker knows which chunk is the last."""
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
        try:
            head = joined(status, headers)
            sound = HEAD.match(head) and head.count("\n") == 2 * len(headers)
        except (TypeError, ValueError):
            sound = False
        if not sound:
            check(status, headers)
        lengths = [int(value) for name, value in headers if name.lower() == "content-length"]
        self.length = lengths[-1] if lengths else None
        self.head = encoded(head)
        return self.write

    def write(self, chunk):
        if self.is_closing():
            raise CallInterrupted("the call has ended")
        self.pass_on(b"W", chunk)

    def pass_on(self, kind, chunk):
        if not isinstance(chunk, bytes):
            raise TypeError("the app gave a chunk of type %s, not bytes" % type(chunk).__name__)
        if kind == b"D" and not self.sent and self.head and 0 < len(chunk) == self.length <= MOST:
            self.send_whole(chunk)
            return
        for at in range(0, len(chunk), MOST):
            self.send(kind, chunk[at : at + MOST], self.opening())

    def send_whole(self, body):
        self.interrupts.busy += 1
        try:
            self.send(b"K", struct.pack("!I", len(self.head)) + self.head + body)
            self.sent = self.whole = True
        finally:
            self.interrupts.over()

    def opening(self):
        """Return what goes before the first chunk: status and headers."""
        if self.sent:
            return b""
        if self.head is None:
            raise AssertionError("the app did not call start_response before its first byte or its end")
        self.sent = True
        return frame(b"H", self.head)


def read(descriptor, size):
    """Return what is there, empty when the worker is gone; Python 2 ends a read at any signal."""
    while True:
        try:
            return os.read(descriptor, size)
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
