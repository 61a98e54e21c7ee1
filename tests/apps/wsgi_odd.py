"""A bare WSGI app with one handler for each oddity of PEP 3333; the header `X-Odd` names it."""

import hashlib
import io
import json
import logging
import sys
import threading
import time
from pathlib import Path
from wsgiref.util import FileWrapper

#: What a server adds by itself, or that no two connections have in common.
_OWN = {"REMOTE_PORT", "SERVER_PORT", "HTTP_X_PROGRAM"}
TEXT = [("Content-Type", "text/plain")]
ODD = {}
#: Set up by the app, as a script does it; it has no effect where somebody was there before.
logging.basicConfig(level=logging.INFO, format="%(levelname)s of the app: %(message)s")
#: How often the iterable of each oddity was closed in this process.
CLOSED = {}


def odd(handler):
    ODD[handler.__name__.replace("_", "-")] = handler
    return handler


def app(environ, start_response):
    return ODD[environ.get("HTTP_X_ODD", "echo")](environ, start_response)


def told(environ):
    """Return what an app is told of a request, by its environ."""
    return {
        key: value
        for key, value in sorted(environ.items())
        if isinstance(value, str) and key.isupper() and key not in _OWN
    }


def failure():
    raise ValueError("as intended")


def exc_info():
    try:
        failure()
    except ValueError:
        return sys.exc_info()


class Body:
    """An iterable whose `close` is counted, and that fails where it is told to."""

    def __init__(self, name, chunks, *, fail_at=None, close_fails=False):
        self._name, self._chunks = name, chunks
        self._fail_at, self._close_fails = fail_at, close_fails

    def __iter__(self):
        for number, chunk in enumerate(self._chunks):
            if number == self._fail_at:
                failure()
            yield chunk
        if self._fail_at == len(self._chunks):
            failure()

    def close(self):
        CLOSED[self._name] = CLOSED.get(self._name, 0) + 1
        if self._close_fails:
            failure()


class NoIterator:
    """An iterable that cannot be iterated, and is closed all the same."""

    def __iter__(self):
        failure()

    def close(self):
        CLOSED["raises-in-iter"] = CLOSED.get("raises-in-iter", 0) + 1


class FailingFile:
    """A file whose n-th read fails, or its close."""

    def __init__(self, name, fail_at):
        self._name, self._fail_at, self._reads = name, fail_at, 0

    def read(self, _size=-1):
        self._reads += 1
        if self._reads == self._fail_at:
            failure()
        return b"piece " if self._reads < 4 else b""

    def close(self):
        CLOSED[self._name] = CLOSED.get(self._name, 0) + 1
        if self._fail_at == "close":
            failure()


class Sequence:
    """An iterable of the old protocol."""

    def __init__(self, chunks):
        self._chunks = chunks

    def __getitem__(self, index):
        return self._chunks[index]


class OnlyIter:
    """An iterable that is nothing else."""

    def __init__(self, chunks):
        self._chunks = chunks

    def __iter__(self):
        return iter(self._chunks)


# -- the environ and the input


@odd
def echo(environ, start_response):
    """Tell the environ, and the body's length and hash."""
    body = environ["wsgi.input"].read()
    answer = {**told(environ), "scheme": environ["wsgi.url_scheme"]}
    answer["body"] = [len(body), hashlib.sha256(body).hexdigest()]
    text = json.dumps(answer, indent=1).encode()
    start_response("200 OK", [*TEXT, ("Content-Length", str(len(text)))])
    return [text]


@odd
def process(environ, start_response):
    """Tell what the environ says of the process, and what types its values have."""
    start_response("200 OK", TEXT)
    answer = {key: value for key, value in environ.items() if key.startswith("wsgi.")}
    answer["types"] = {key: type(value).__name__ for key, value in environ.items()}
    answer["exact"] = type(environ) is dict
    return [json.dumps(answer, default=repr).encode()]


@odd
def reads(environ, start_response):
    """Read the body in every way that PEP 3333 knows, then past its end."""
    body = environ["wsgi.input"]
    parts = [
        body.read(0),
        body.read(3),
        body.readline(),
        body.readline(2),
        next(iter(body), b""),
        body.readline(100),
        body.read(5),
        body.read(-1),
        body.read(),
        body.read(1),
        body.readline(),
        *body.readlines(),
        *body,
    ]
    start_response("200 OK", TEXT)
    return [repr(parts).encode()]


@odd
def seeks(environ, start_response):
    """Tell whether the body can be turned back."""
    body = environ["wsgi.input"]
    body.read(1)
    try:
        body.seek(0)
        answer = b"seekable"
    except (AttributeError, OSError):
        answer = b"not seekable"
    start_response("200 OK", TEXT)
    return [answer + b", " + body.read(1)]


@odd
def reads_late(environ, start_response):
    """Read the body in the generator, after the app has returned, between chunks of the response."""
    start_response("200 OK", TEXT)

    def body():
        yield b"begun "
        while piece := environ["wsgi.input"].read(7):
            yield b"[" + piece + b"]"

    return body()


@odd
def reads_part(environ, start_response):
    """Answer after a few bytes of the body."""
    part = environ["wsgi.input"].read(4)
    start_response("200 OK", TEXT)
    return [b"part ", part]


@odd
def reads_nothing(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"unread"]


@odd
def changes_environ(environ, start_response):
    """Take the environ apart; each run has its own."""
    before = sorted(key for key in environ if key == "odd.changed")
    environ["odd.changed"] = environ["PATH_INFO"] = "/changed"
    environ.pop("QUERY_STRING")
    start_response("200 OK", TEXT)
    return [repr(before).encode()]


@odd
def writes_errors(environ, start_response):
    """Write to `wsgi.errors` in each way that it has."""
    errors = environ["wsgi.errors"]
    errors.write("written ")
    errors.writelines(["to ", "wsgi.errors\n"])
    errors.flush()
    start_response("200 OK", TEXT)
    return [b"written"]


@odd
def logs(environ, start_response):
    """Log by the root logger, at a level that is off by default."""
    logging.getLogger("odd").info("logged for %s", environ["QUERY_STRING"])
    start_response("200 OK", TEXT)
    return [b"logged"]


# -- start_response and write


@odd
def lazy(environ, start_response):
    """Call start_response with the first step of a generator, after an empty chunk."""
    yield b""
    start_response("200 OK", TEXT)
    yield b"lazy"


@odd
def late_head(environ, start_response):
    """Replace a head that was not sent."""
    start_response("200 OK", [*TEXT, ("X-Old", "1")])
    start_response("503 Replaced", [*TEXT, ("X-New", "1")], exc_info())
    return [b"replaced"]


@odd
def too_late_head(environ, start_response):
    """Ask for another head after the first byte."""
    start_response("200 OK", TEXT)
    yield b"begun"
    start_response("500 Too Late", TEXT, exc_info())
    yield b"never"


@odd
def two_heads(environ, start_response):
    start_response("200 OK", TEXT)
    start_response("201 Again", TEXT)
    return [b"never"]


@odd
def no_head(environ, start_response):
    return []


@odd
def body_without_head(environ, start_response):
    return iter([b"body"])


@odd
def writes(environ, start_response):
    """Write before the iterable, and within it."""
    write = start_response("200 OK", TEXT)
    write(b"one ")
    write(b"")
    write(b"two ")

    def body():
        yield b"three "
        write(b"four ")
        yield b"five"

    return body()


@odd
def headers(environ, start_response):
    """Send headers whose order, case and repetition matter."""
    start_response(
        "299 Made Up, h\xfcbsch",
        [
            ("Set-Cookie", "a=1"),
            ("x-odd-CASE", " spaces and \xe4 "),
            ("Set-Cookie", "b=2"),
            ("Vary", "Accept"),
            ("WWW-Authenticate", "Basic"),
            ("WWW-Authenticate", 'Digest realm="x"'),
            ("Vary", "Cookie"),
            ("X-Empty", ""),
            *TEXT,
        ],
    )
    return [b"headers"]


@odd
def generated_headers(environ, start_response):
    """Give the headers as a generator, which can be read once."""
    start_response("200 OK", (pair for pair in [*TEXT, ("X-Odd", "yes")]))
    return [b"generated"]


@odd
def changed_headers(environ, start_response):
    """Change the list after it was given."""
    given = [*TEXT, ("X-Odd", "yes")]
    start_response("200 OK", given)
    given.append(("X-Late", "yes"))
    return [b"changed"]


@odd
def hop_by_hop(environ, start_response):
    """Send headers that are a server's own."""
    own = ("Connection", "Keep-Alive", "Proxy-Authenticate", "TE", "Trailer", "Transfer-Encoding", "Upgrade")
    start_response("200 OK", [*TEXT, *((name, "x") for name in own), ("X-Odd", "yes")])
    return [b"hop by hop"]


@odd
def refused_header(environ, start_response):
    """Have each bad header refused where the app sees it, and say so."""
    refused = []
    bad = [
        ("X\n", "v"),
        ("X", "a\r\nb"),
        ("X", "\x00"),
        ("X", "\x01"),
        ("X", "\x7f"),
        ("", "v"),
        ("X y", "v"),
    ]
    for pair in [*bad, ("Content-Length", "many"), ("X", "\u20ac")]:
        try:
            start_response("200 OK", [*TEXT, pair], exc_info())
        except Exception:  # noqa: BLE001 - each server has its own
            refused.append(repr(pair))
    start_response("200 OK", TEXT, exc_info())
    return [";".join(refused).encode()]


@odd
def refused_status(environ, start_response):
    """Have each bad status refused where the app sees it, and say so."""
    refused = []
    for status in ("", "20 OK", "2000 OK", "200OK", "200 O\nK", "200 \u20ac", "OK", "200 \x7f"):
        try:
            start_response(status, TEXT, exc_info())
        except Exception:  # noqa: BLE001 - each server has its own
            refused.append(repr(status))
    start_response("200 OK", TEXT, exc_info())
    return [";".join(refused).encode()]


@odd
def interim(environ, start_response):
    """Answer with a status that is no final one."""
    start_response("102 Processing", [])
    return []


@odd
def bare_status(environ, start_response):
    start_response("404", TEXT)
    return [b"no reason"]


# -- the iterable


def _kind(name, make):
    def handler(environ, start_response):
        start_response("200 OK", TEXT)
        return make([b"first ", b"", b"second ", b"third"])

    handler.__name__ = name
    odd(handler)


for _name, _make in {
    "a_list": list,
    "a_tuple": tuple,
    "a_set_of_one": lambda chunks: {b"".join(chunks)},
    "a_generator": lambda chunks: (chunk for chunk in chunks),
    "a_sequence": Sequence,
    "an_iterable": OnlyIter,
    "a_file": lambda chunks: io.BytesIO(b"\n".join(chunks)),
    "a_wrapped_file": lambda chunks: FileWrapper(io.BytesIO(b"".join(chunks)), 5),
    "an_empty_list": lambda _: [],
    "empty_chunks": lambda _: [b"", b""],
    "text": lambda _: "text",
    "none": lambda _: None,
    "chunks_of_text": lambda _: iter([b"good", "text"]),
}.items():
    _kind(_name, _make)


@odd
def file_wrapper(environ, start_response):
    """Return the server's own wrapper around a file; `X-File` is read."""
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](Path(__file__).open("rb"), 1000)


@odd
def short_body(environ, start_response):
    """Announce more than there is."""
    start_response("200 OK", [*TEXT, ("Content-Length", "100")])
    return [b"short"]


@odd
def short_stream(environ, start_response):
    start_response("200 OK", [*TEXT, ("Content-Length", "100")])
    yield b"short "
    yield b"stream"


@odd
def long_body(environ, start_response):
    """Announce less than there is."""
    start_response("200 OK", [*TEXT, ("Content-Length", "4")])
    return [b"lo", b"ng body"]


@odd
def spaced_length(environ, start_response):
    """Announce less than there is, with spaces."""
    start_response("200 OK", [*TEXT, ("Content-Length", " 4 ")])
    return iter([b"lo", b"ng body"])


@odd
def fails_after_all(environ, start_response):
    """Give as much as was announced, then fail."""
    start_response("200 OK", [*TEXT, ("Content-Length", "3")])
    return Body("fails-after-all", [b"all"], fail_at=1)


@odd
def no_content(environ, start_response):
    """Send a body where none is allowed."""
    start_response("204 No Content", [("X-Odd", "yes")])
    return [b"not allowed"]


@odd
def not_modified(environ, start_response):
    start_response("304 Not Modified", [("Content-Length", "99"), ("ETag", '"x"')])
    return []


@odd
def bodiless_fails(environ, start_response):
    """Fail after the first byte of a body that no client sees."""
    start_response("204 No Content", [("X-Odd", "yes")])
    return Body("bodiless-fails", [b"x"], fail_at=1)


@odd
def events(environ, start_response):
    """Make three events, each when the file of its number is in the folder that the query names."""
    folder = Path(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/event-stream")])

    def body():
        for number in range(3):
            while not (folder / str(number)).exists():
                time.sleep(0.005)
            yield b"data: %d\n\n" % number

    return body()


@odd
def endless(environ, start_response):
    """Make events until the file that the query names exists."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    while not Path(environ["QUERY_STRING"]).exists():
        yield b"data: again\n\n"
        time.sleep(0.02)


# -- failures


@odd
def raises(environ, start_response):
    failure()


@odd
def raises_os_error(environ, start_response):
    raise PermissionError("as intended")


@odd
def raises_system_exit(environ, start_response):
    sys.exit("as intended")


@odd
def raises_after_head(environ, start_response):
    start_response("200 OK", TEXT)
    failure()


@odd
def raises_at_first(environ, start_response):
    start_response("200 OK", TEXT)
    return Body("raises-at-first", [b"a"], fail_at=0)


@odd
def raises_in_the_middle(environ, start_response):
    start_response("200 OK", TEXT)
    return Body("raises-in-the-middle", [b"a", b"b"], fail_at=1)


@odd
def raises_at_the_end(environ, start_response):
    start_response("200 OK", TEXT)
    return Body("raises-at-the-end", [b"a", b"b"], fail_at=2)


@odd
def raises_in_close(environ, start_response):
    start_response("200 OK", TEXT)
    return Body("raises-in-close", [b"a", b"b"], close_fails=True)


@odd
def raises_after_write(environ, start_response):
    start_response("200 OK", TEXT)(b"written")
    failure()


@odd
def raises_in_iter(environ, start_response):
    start_response("200 OK", TEXT)
    return NoIterator()


def _failing_file(name, fail_at):
    def handler(environ, start_response):
        start_response("200 OK", TEXT)
        return environ["wsgi.file_wrapper"](FailingFile(name, fail_at), 1000)

    handler.__name__ = name
    odd(handler)


for _name, _fail_at in {
    "file-fails-at-once": 1,
    "file-fails-later": 3,
    "file-fails-in-close": "close",
}.items():
    _failing_file(_name, _fail_at)


@odd
def closes(environ, start_response):
    start_response("200 OK", TEXT)
    return Body("closes", [b"closes"])


@odd
def closed(environ, start_response):
    """Tell how often each iterable was closed in this process."""
    start_response("200 OK", TEXT)
    return [json.dumps(CLOSED).encode()]


#: A thread that the app starts when it is imported.
TICKS = []
threading.Thread(target=TICKS.append, args=(1,), daemon=True).start()


@odd
def ticks(environ, start_response):
    start_response("200 OK", TEXT)
    return [str(len(TICKS)).encode()]


# -- a program of the request's own


def _read(environ, how):
    body = environ["wsgi.input"]
    if how == "all":
        return [repr(told(environ)).encode(), hashlib.sha256(body.read(-1)).hexdigest().encode()]
    if how == "lines":
        return [hashlib.sha256(b"".join(hashlib.md5(line).digest() for line in body)).digest()]
    return [body.read(10)] if how == "some" else []


@odd
def program(environ, start_response):
    """Do as `X-Program` says: how much to read, status, headers, kind of body, chunks, where to fail."""
    plan = json.loads(environ["HTTP_X_PROGRAM"])
    fail, chunks = plan["fail"], [text.encode("latin-1") * times for text, times in plan["chunks"]]
    chunks.extend(_read(environ, plan["read"]))
    if isinstance(fail, int):
        chunks = [chunk or b"-" for chunk in chunks]  # gunicorn alone sends the head with an empty chunk
    given = [tuple(pair) for pair in plan["headers"]]
    if plan["length"] is not None:
        given.append(("Content-Length", str(sum(map(len, chunks)) + plan["length"])))
    if fail == "before":
        failure()
    write = start_response(plan["status"], given)
    if fail == "after":
        failure()
    if plan["writes"]:
        write(chunks.pop(0) if chunks else b"")
    if plan["kind"] == "list" and fail is None:
        return chunks
    if plan["kind"] == "sequence" and fail is None:
        return Sequence(chunks)
    fail_at = fail if isinstance(fail, int) else None
    return Body("program", chunks, fail_at=fail_at, close_fails=fail == "close")
