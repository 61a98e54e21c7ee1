"""What `app_host.py` is made of: texts of frames, interrupts, and what the app sees."""

import io
import os
import signal
import struct
import sys

PY2 = sys.version_info[0] == 2

HEADER = struct.Struct("!cI")
#: Bytes of one DATA frame, and of a list that is sent whole.
MOST = 256 * 1024

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
    """Return texts as one payload; `unpack` reads it."""
    parts = [text if isinstance(text, bytes) else text.encode("utf-8", "replace") for text in texts]
    return struct.pack("!%dI" % (1 + len(parts)), len(parts), *map(len, parts)) + b"".join(parts)


def unpack(payload):
    """Return the texts of a payload as native strings, and what lies after them as bytes."""
    (count,) = struct.unpack_from("!I", payload)
    lengths = struct.unpack_from("!%dI" % count, payload, 4)
    at, texts = 4 + 4 * count, []
    for length in lengths:
        text = payload[at : at + length].decode("utf-8", "replace" if PY2 else "surrogatepass")
        texts.append(text.encode("latin-1", "replace") if PY2 else text)
        at += length
    return texts, payload[at:]


def frame(kind, payload=b""):
    return HEADER.pack(kind, len(payload)) + payload


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

    def raise_if_asked(self):
        if self.asked and self.armed and not self.busy:
            self.asked = self.armed = False
            raise CallInterrupted("the call timed out or was cancelled")


class Shield(object):  # noqa: UP004
    """Holds interrupts back while a frame is written or read, in the main thread."""

    def __init__(self, interrupts):
        self.interrupts = interrupts

    def __enter__(self):
        self.interrupts.busy += 1

    def __exit__(self, *_):
        self.interrupts.busy -= 1
        self.interrupts.raise_if_asked()


class NoShield(object):  # noqa: UP004
    """In other threads: no signal reaches them."""

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


def forked_children_take_signals():
    """Have the processes that the app forks take signals as new ones do.

    Held back around the fork: one that comes right after it must find the child's own way to take it.
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
    """Block what the worker may send; return what ends that."""
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
    """End a process that a handler has forked, and that has left the handler."""
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
    """A request body that came with its call; like a server's, it cannot be turned back."""

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
    """An iterable of a file's blocks; large ones, whatever is asked for."""

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
        """Report how far this call is: `environ["wsgi_timeout.progress"]`. A courtesy: it never raises."""
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
