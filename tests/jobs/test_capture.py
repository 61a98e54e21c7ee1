"""An app's response, taken apart as PEP 3333 says a server must."""

import io
import sys
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from captured import TEXT, Record, an_environ

from wsgi_timeout.store.messages import ResponseHead
from wsgi_timeout_jobs.attempt.capture import Capture


def run(app, *, valid=True, method="GET"):
    """Run an app as a worker does, under wsgiref.validate if it keeps the rules; returns what came of it."""
    sink = Record()
    captured = Capture(sink)
    try:
        captured.run(validator(app) if valid else app, an_environ(method))
    finally:
        captured.close()
    return sink.events


def fails(app, error, match=None):
    """Run an app that breaks the rules; returns what the sink was given before."""
    sink = Record()
    captured = Capture(sink)
    with pytest.raises(error, match=match):
        captured.run(app, an_environ())
    captured.close()
    return sink.events


def head(status="200 OK", headers=TEXT):
    return ResponseHead(status, headers)


# -- plain responses


def test_a_list():
    """The last chunk of a list is known to be the last."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return [b"a", b"b"]

    assert run(app, valid=False) == [head(), (b"a", False), (b"b", True), "end"]


@pytest.mark.parametrize("kind", [list, tuple])
def test_one_chunk(kind):
    """A response of one chunk is known to be whole when it comes."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return kind([b"all"])

    assert run(app, valid=False) == [head(), (b"all", True), "end"]


def test_a_valid_app():
    """An app that keeps the rules runs under wsgiref.validate without a complaint."""

    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        write(b"written ")
        return iter([b"and ", b"yielded"])

    assert run(app) == [head(), (b"written ", False), (b"and ", False), (b"yielded", False), "end"]


@pytest.mark.parametrize("body", [[], [b""], (), iter([]), iter([b"", b""])])
def test_an_empty_body(body):
    """The head goes out at the end of a body without a byte: the status is not lost."""

    def app(environ, start_response):
        start_response("204 No Content", [])
        return body

    assert run(app, valid=False) == [head("204 No Content", []), "end"]


def test_a_lazy_generator():
    """A generator calls start_response with its first step, and each chunk is passed on before the next."""
    sink = Record()

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"one"
        assert sink.events == [head(), (b"one", False)]
        yield b"two"
        assert sink.events[-1] == (b"two", False)

    captured = Capture(sink)
    captured.run(app, an_environ())
    captured.close()
    assert sink.events[-1] == "end"


def test_empty_chunks_send_nothing():
    """Empty chunks before, between and after others are legal and no chunks."""

    def app(environ, start_response):
        yield b""
        start_response("200 OK", TEXT)
        yield b""
        yield b"body"
        yield b""

    assert run(app, valid=False) == [head(), (b"body", False), "end"]


class OldStyle:
    """An iterable of the old protocol."""

    def __getitem__(self, index):
        return [b"a", b"b"][index]


class OnlyIter:
    """An iterable without a length, an end or a close()."""

    def __iter__(self):
        yield b"a"
        yield b"b"


@pytest.mark.parametrize(
    "iterable", [OldStyle(), OnlyIter(), FileWrapper(io.BytesIO(b"ab"), 1), {b"a": 1, b"b": 2}]
)
def test_any_iterable(iterable):
    """Whatever can be iterated over is a body."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return iterable

    assert run(app, valid=False) == [head(), (b"a", False), (b"b", False), "end"]


def test_order_case_and_duplicates_of_headers():
    """Headers are kept as a list: their order, their case, and each of several of one name."""
    headers = [
        ("Set-Cookie", "a=1"),
        ("x-odd-CASE", "1"),
        ("Set-Cookie", "b=2"),
        ("Content-Type", "text/plain"),
    ]

    def app(environ, start_response):
        start_response("299 Made Up", headers)
        return [b"x"]

    assert run(app)[0] == head("299 Made Up", headers)


def test_headers_are_copied():
    """A list that the app goes on changing does not change what it has said."""

    def app(environ, start_response):
        headers = list(TEXT)
        start_response("200 OK", headers)
        headers.append(("X-Late", "1"))
        return [b"x"]

    assert run(app, valid=False)[0] == head()


def test_a_head_request_is_iterated_too():
    """The app's iterable is run to its end for HEAD; what is not sent is the sink's affair."""

    def app(environ, start_response):
        start_response("200 OK", [*TEXT, ("Content-Length", "4")])
        return iter([b""])

    assert run(app, method="HEAD")[-1] == "end"


# -- write()


def test_write_comes_before_the_body():
    """What was written stands before what is yielded, and is never taken for the last."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)(b"first")
        return [b"second"]

    assert run(app, valid=False) == [head(), (b"first", False), (b"second", True), "end"]


def test_write_sends_the_head():
    """After a written byte another status comes too late."""

    def app(environ, start_response):
        write = start_response("200 OK", TEXT)
        write(b"")
        start_response("500 Oops", TEXT, exc())
        write(b"begun")
        start_response("500 Late", TEXT, exc())

    assert fails(app, ValueError, "as intended") == [head("500 Oops"), (b"begun", False)]


@pytest.mark.parametrize("chunk", ["text", None, 1, bytearray(b"x"), memoryview(b"x")])
def test_write_takes_bytes_only(chunk):
    """write() with anything but bytes is an error in the app."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)(chunk)

    assert fails(app, TypeError, f"type {type(chunk).__name__}, not bytes") == []


# -- start_response


def oops():
    raise ValueError("as intended")


def exc():
    """Return the exc_info of an exception that was caught."""
    try:
        oops()
    except ValueError:
        return sys.exc_info()


def test_a_second_start_response():
    """A second call without exc_info is an error, also when nothing was sent yet."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        start_response("201 Created", TEXT)

    assert fails(app, AssertionError, "second time") == []


def test_exc_info_replaces_an_unsent_head():
    """With exc_info a head that was not sent is replaced, status and headers."""

    def app(environ, start_response):
        start_response("200 OK", [*TEXT, ("X-Old", "1")])
        start_response("500 Oops", TEXT, exc())
        return [b"sorry"]

    assert run(app) == [head("500 Oops"), (b"sorry", False), "end"]


def test_exc_info_on_the_first_call():
    """A first call may carry exc_info."""

    def app(environ, start_response):
        start_response("500 Oops", TEXT, exc())
        return [b"sorry"]

    assert run(app)[0] == head("500 Oops")


def test_exc_info_after_the_head_was_sent():
    """With exc_info after the first byte the app's own exception is raised, with its traceback."""
    raised = exc()

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"begun"
        start_response("500 Oops", TEXT, raised)
        yield b"never"

    sink = Record()
    captured = Capture(sink)
    with pytest.raises(ValueError, match="as intended") as caught:
        captured.run(app, an_environ())
    captured.close()
    assert caught.value is raised[1]
    assert caught.traceback[-1].name == "oops"
    assert sink.events == [head(), (b"begun", False)]


def test_an_app_may_catch_what_exc_info_raises():
    """An app that goes on after its late exc_info was refused has its first head only."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"begun"
        try:
            start_response("500 Oops", TEXT, exc())
        except ValueError:
            yield b" and ended"

    assert run(app, valid=False) == [head(), (b"begun", False), (b" and ended", False), "end"]


def test_a_body_without_start_response():
    """A byte before start_response is an error, and nothing of it is passed on."""

    def app(environ, start_response):
        yield b"body"

    assert fails(app, AssertionError, "start_response") == []


def test_no_start_response_at_all():
    """An app that never calls start_response has no response, with or without a body."""
    assert fails(lambda *_: [], AssertionError, "start_response") == []


def test_a_factory_in_place_of_an_app():
    """An app that returns an app is a factory: the error says how to name that."""
    fails(lambda _, __: lambda: None, TypeError, "the target is a factory")


@pytest.mark.parametrize("returned", [None, b"bytes", "text", b"", ""])
def test_what_is_no_iterable_of_bytes(returned):
    """None, bytes and text as a body are errors that name the type, never iterated over by accident."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return returned

    assert fails(app, TypeError, f"returned {type(returned).__name__}") == []


@pytest.mark.parametrize("chunk", ["text", "", None, 1, bytearray(b"x")])
def test_what_is_no_chunk(chunk):
    """A chunk that is not bytes is an error that names its type; what came before stays."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return [b"good", chunk]

    assert fails(app, TypeError, f"type {type(chunk).__name__}, not bytes") == [head(), (b"good", False)]


# -- checks


@pytest.mark.parametrize(
    "status",
    [
        "200",
        "200 ",
        "200 OK",
        "299 Custom Reason",
        "599 x",
        "404 Nicht gefunden, schade \xe4",
        "200 tab\there",
    ],
)
def test_a_good_status(status):
    """Three digits and any reason of latin-1 text, or none, are a status."""

    def app(environ, start_response):
        start_response(status, TEXT)
        return [b"x"]

    assert run(app, valid=False)[0] == head(status)


@pytest.mark.parametrize(
    "status",
    [
        "",
        "OK",
        "20 OK",
        "2000 OK",
        "200OK",
        " 200 OK",
        "100 Continue",
        "101 Switching Protocols",
        "000 Nothing",
        "200 OK\r\nX: y",
        "200 OK\n",
        "200 O\x00K",
        "200 \x7f",
        "200 \u2713",
        "2\u0660\u0660 OK",
        200,
        b"200 OK",
        None,
    ],
)
def test_a_bad_status(status):
    """A status that no server can send is refused where the app sees it, and its value is named."""

    def app(environ, start_response):
        start_response(status, TEXT)

    assert fails(app, ValueError, "must be text like '200 OK'") == []


@pytest.mark.parametrize("name", ["X", "x-y", "!#$%&'*+.^_`|~09AZaz-"])
@pytest.mark.parametrize("value", ["", "v", "a b\tc", "\xe4\xff", '"quoted"; a=b'])
def test_good_headers(name, value):
    """A token as name and latin-1 text as value are a header."""

    def app(environ, start_response):
        start_response("200 OK", [(name, value)])
        return [b"x"]

    assert run(app, valid=False)[0] == head(headers=[(name, value)])


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a:", "a:b", "\xe4", "a\r\n", "a\n", "(a)", "a,b", '"a"', "a/b", "\u212a"],
)
def test_a_header_name_is_a_token(name):
    """A header name that is no token is refused."""

    def app(environ, start_response):
        start_response("200 OK", [("Good", "1"), (name, "v")])

    assert fails(app, ValueError, "not a token") == []


@pytest.mark.parametrize(
    "value", ["a\r\nSet-Cookie: evil=1", "a\rb", "a\nb", "a\x00b", "\r", "\n", "\x00", "a\r\n b"]
)
def test_a_header_value_holds_no_line_break(value):
    """CR, LF and NUL in a value are refused, so that no header can be smuggled in."""

    def app(environ, start_response):
        start_response("200 OK", [("X-Evil", value)])

    assert fails(app, ValueError, "holds CR, LF or NUL") == []


def test_a_header_value_is_latin1():
    """A value that cannot be sent as bytes is refused."""

    def app(environ, start_response):
        start_response("200 OK", [("X-Text", "\u20ac")])

    assert fails(app, UnicodeEncodeError, "latin-1") == []


@pytest.mark.parametrize("header", [(b"X", "v"), ("X", b"v"), ("X", 1), (None, "v")])
def test_a_header_is_text(header):
    """Names and values that are not text are refused."""

    def app(environ, start_response):
        start_response("200 OK", [header])

    assert fails(app, TypeError, "must be str") == []


@pytest.mark.parametrize("header", [("X",), ("X", "v", "w"), "X"])
def test_a_header_is_a_pair(header):
    """What is no pair of a name and a value is refused."""

    def app(environ, start_response):
        start_response("200 OK", [header])

    assert fails(app, ValueError, "values to unpack") == []


def test_a_refused_head_may_be_replaced():
    """An app that sees its bad header refused can answer with another head."""

    def app(environ, start_response):
        try:
            start_response("200 OK", [("X-Evil", "a\nb")])
        except ValueError:
            start_response("500 Oops", TEXT, sys.exc_info())
        return [b"sorry"]

    assert run(app, valid=False)[0] == head("500 Oops")


# -- close()


class Closing:
    """A body that counts its close() calls, and fails where it is told to."""

    def __init__(self, fail_at=None):
        self.closed = 0
        self._fail_at = fail_at

    def __iter__(self):
        for number in range(3):
            if number == self._fail_at:
                raise ValueError("as intended")
            yield b"x"

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("fail_at", [None, 0, 1])
def test_close_reaches_the_apps_iterable(fail_at):
    """close() of the capture is that of the app's iterable, once, also after an exception in it."""
    body = Closing(fail_at)

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        return body

    captured = Capture(Record())
    if fail_at is None:
        captured.run(app, an_environ())
    else:
        with pytest.raises(ValueError, match="as intended"):
            captured.run(app, an_environ())
    assert body.closed == 0
    captured.close()
    assert body.closed == 1


def test_close_without_start_response():
    """The iterable of an app that never called start_response is closed as well."""
    body = Closing()
    captured = Capture(Record())
    with pytest.raises(AssertionError):
        captured.run(lambda *_: body, an_environ())
    captured.close()
    assert body.closed == 1


def test_close_of_what_has_none():
    """An app that raised before it returned, or returned a list, leaves nothing to close."""

    def raises(environ, start_response):
        raise ValueError("as intended")

    captured = Capture(Record())
    with pytest.raises(ValueError, match="as intended"):
        captured.run(raises, an_environ())
    captured.close()
    Capture(Record()).close()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_any_exception_comes_through(error):
    """Every exception of the app reaches the caller, who knows what it means."""

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"begun"
        raise error

    assert fails(app, error) == [head(), (b"begun", False)]
