"""Points of PEP 3333 that need no server to show."""

import gc
import io
import sys
import weakref

import pytest
from captured import TEXT, Record, an_environ

from wsgi_timeout_jobs.attempt.capture import Capture
from wsgi_timeout_jobs.attempt.request_body import SmallBody


class Watched(ValueError):
    """An exception that a weak reference can watch."""


def watched():
    raise Watched


def test_no_reference_cycle_holds_an_exception():
    """What a late exc_info held is free with the request, without a run of the garbage collector."""
    seen = []

    def app(environ, start_response):
        start_response("200 OK", TEXT)
        yield b"begun"
        try:
            watched()
        except Watched as error:
            seen.append(weakref.ref(error))
            start_response("500 Too Late", TEXT, sys.exc_info())

    def request():
        captured = Capture(Record())
        with pytest.raises(Watched):
            captured.run(app, an_environ())
        captured.close()

    gc.collect()
    gc.disable()
    try:
        request()
        assert seen[0]() is None
    finally:
        gc.enable()


def test_headers_may_come_once():
    """A generator of headers is read once, and nothing of it is lost."""
    sink = Record()
    captured = Capture(sink)

    def app(environ, start_response):
        start_response("200 OK", (pair for pair in TEXT))
        return [b"x"]

    captured.run(app, an_environ())
    assert sink.events[0].headers == TEXT


@pytest.mark.parametrize("value", ["\x01", "a\x1fb", "\x7f", "\x0b"])
def test_no_control_character_is_sent(value):
    """A control character in a header is refused where the app sees it."""
    with pytest.raises(ValueError, match="control character"):
        Capture(Record()).start_response("200 OK", [("X-Odd", value)])


@pytest.mark.parametrize("value", ["", "many", "1.0", "\xb2"])
def test_a_length_is_a_number(value):
    """A Content-Length that is no number is refused where the app sees it."""
    with pytest.raises(ValueError, match="invalid literal"):
        Capture(Record()).start_response("200 OK", [("Content-Length", value)])


def test_a_small_body_cannot_be_turned_back():
    """`wsgi.input` of a small body says that it does not seek, and does not."""
    body = SmallBody(b"abc")
    assert not body.seekable()
    with pytest.raises(io.UnsupportedOperation):
        body.seek(0)
    assert body.read() == b"abc"
