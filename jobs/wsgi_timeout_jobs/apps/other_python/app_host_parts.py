"""What `app_host.py` is made of: texts of frames, interrupts, and what the app sees."""

import io
import os
import re
import signal
import struct
import sys

PY2 = sys.version_info[0] == 2
TEXT = (str, type(u"")) if PY2 else (str,)  # fmt: skip

HEADER = struct.Struct("!cI")
#: Bytes of one DATA frame, and of a list that is sent whole.
MOST = 256 * 1024

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_STATUS = r"[2-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?"
NAME = re.compile(_NAME + r"\Z")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
STATUS = re.compile(_STATUS + r"\Z")
#: Status and headers, a line for each text: all that `check` looks at, at once.
HEAD = re.compile(_STATUS + r"(?:\n" + _NAME + r"\n[\t\x20-\x7e\x80-\xff]*)*\Z")

#: Not SIGALRM nor SIGUSR1: apps use those.
INTERRUPT = signal.SIGUSR2
SIGNALS = (signal.SIGTERM, signal.SIGINT, INTERRUPT)


class CallInterrupted(BaseException):
    """Raised in a handler whose call has timed out or was cancelled: its `finally` blocks run."""


class UploadBroken(IOError):
    """The request body ended before its announced length."""


# -- texts


def encoded(text):
    """Return a native string, whose characters are bytes (PEP 3333), as bytes."""
    return text if isinstance(text, bytes) else text.encode("latin-1")


def pack(texts):
    """Return texts as one payload; the worker's `unpack` reads it."""
    parts = [text if isinstance(text, bytes) else text.encode("utf-8", "replace") for text in texts]
    return struct.pack("!%dI" % (1 + len(parts)), len(parts), *map(len, parts)) + b"".join(parts)


def native(text):
    """Return text as a native string, whose characters are bytes (PEP 3333)."""
    return text.encode("latin-1", "replace") if PY2 else text


def natives(texts):
    """Return a dict of texts as one of native strings."""
    return dict((native(key), native(value)) for key, value in texts.items()) if PY2 else texts


def frame(kind, payload):
    return HEADER.pack(kind, len(payload)) + payload


def joined(status, headers):
    """Return status and headers as one native string, of a line for each text."""
    texts = [status]
    for name, value in headers:
        texts += (name, value)
    return "\n".join([encoded(text) for text in texts] if PY2 else texts)


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


# -- interrupts and forks


class Interrupts(object):  # noqa: UP004 - Python 2
    """Raises `CallInterrupted` in the main thread, while app code runs there and no frame is on its way."""

    def __init__(self):
        self.armed = False
        self.busy = 0
        self.asked = False

    def ignore(self, _number, _frame):
        """Do nothing at a signal."""

    def handle(self, _number, _frame):
        if self.armed:
            self.asked = True
            self.raise_if_asked()

    def over(self):
        """Undo one `busy += 1`, and raise an interrupt that came meanwhile."""
        self.busy -= 1
        if self.asked:
            self.raise_if_asked()

    def raise_if_asked(self):
        if self.asked and self.armed and not self.busy:
            self.asked = self.armed = False
            raise CallInterrupted("the call timed out or was cancelled")


def forked_children_take_signals():
    """Give the processes that the app forks the default signal handlers.

    Signals are blocked around the fork, so that one that comes right after it finds those handlers.
    """
    fork = os.fork

    def fork_and_reset():
        release = hold_signals()
        pid = -1
        try:
            pid = fork()
            if pid == 0:
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_DFL)
        finally:
            release()
        return pid

    os.fork = fork_and_reset


def hold_signals():
    """Block the signals that the worker sends; return a function that unblocks them."""
    if not PY2:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        return lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before)
    import ctypes

    library = ctypes.CDLL(None)
    mask, before = ctypes.create_string_buffer(128), ctypes.create_string_buffer(128)
    library.sigemptyset(mask)
    for number in SIGNALS:
        library.sigaddset(mask, number)
    library.pthread_sigmask(0, mask, before)  # SIG_BLOCK, on Linux
    return lambda: library.pthread_sigmask(2, before, None)  # SIG_SETMASK


def end_here(error):
    """End a process that a handler has forked, once the handler has returned or raised there."""
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    leave(code)


def leave(code):
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S110, PERF203 - nobody may read them any more
            pass
    os._exit(code)  # noqa: SLF001


# -- what the app sees


class SmallBody(io.BytesIO):
    """A request body that came with its call; like a server's, it cannot be read again."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise io.UnsupportedOperation("wsgi.input cannot seek")


class RequestBody(io.RawIOBase):
    """Asks the worker for each piece of a large request body."""

    def __init__(self, connection):
        io.RawIOBase.__init__(self)
        self.connection = connection

    def readable(self):
        return True

    def readinto(self, buffer):
        piece = self.connection.read_body(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class FileWrapper(object):  # noqa: UP004
    """An iterable of a file's blocks; they are large, even if smaller ones are asked for."""

    def __init__(self, filelike, blksize=8192):
        self.filelike = filelike
        self.blksize = max(blksize, MOST)
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        data = self.filelike.read(self.blksize)
        if not data:
            raise StopIteration
        return data

    next = __next__


class RunningCall(object):  # noqa: UP004
    """What `environ["wsgi_timeout.call"]` is."""

    def __init__(self, call_id, attempt, reports):
        self.id = call_id
        self.attempt = attempt
        self._reports = reports

    def report(self, report):
        self.progress(report.get("done"), report.get("total"), report.get("message", ""))

    def progress(self, done, total=None, message=""):
        """Report how far this call is: `environ["wsgi_timeout.progress"]`; it never raises."""
        try:
            message = message if isinstance(message, type(u"")) else str(message)  # fmt: skip
            texts = [self.id, str(self.attempt), number(done), number(total), message[:1024]]
            self._reports.send(pack(texts))
        except Exception:  # noqa: BLE001, S110 - the worker may be busy
            pass


def number(value):
    if value is None:
        return ""
    return str(int(value)) if int(value) == value else repr(float(value))
