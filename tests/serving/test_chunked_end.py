"""The end of a chunked body is found wherever it is cut into pieces, with extensions and trailers."""

import pytest

from wsgi_timeout.serving.chunked_end import ChunkedEnd

WHOLE = [
    b"0\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"3\r\n\r\n0\r\n0\r\n\r\n",
    b"05;name=value\r\n0\r\n\r\n\r\n000;last\r\n\r\n",
    b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
    b"a \r\n0123456789\r\n0\r\nX: \n\r\n\r\n",
]
NONE = [b"zz\r\n", b"-1\r\n", b"\r\n", b"3\r\nabc\r\nx\r\n"]


@pytest.mark.parametrize("body", WHOLE)
def test_the_end_is_where_the_last_line_is(body):
    """Byte by byte, and in two pieces at any place, the end has come with the last byte and not before."""
    for size in range(1, len(body) + 1):
        end = ChunkedEnd()
        for start in range(0, len(body), size):
            assert not end.come
            end.feed(body[start : start + size])
        assert end.come
    assert not any(ChunkedEnd(body[:size]).come for size in range(len(body)))


@pytest.mark.parametrize("body", WHOLE)
def test_what_follows_belongs_to_the_next_request(body):
    """More bytes after the end change nothing."""
    assert ChunkedEnd(body + b"GET / HTTP/1.1\r\n").come


@pytest.mark.parametrize("body", NONE)
def test_what_is_no_chunk_is_not_waited_for(body):
    """A line that no parser takes as a size ends the wait: the parser is to say so."""
    assert ChunkedEnd(body).come


@pytest.mark.parametrize("body", [b"3\nabc\n0\n\n", b"0\r\nX: 1\n\n", b"1" * 70_000])
def test_what_a_parser_waits_for_is_waited_for(body):
    """Lines without CRLF, and endless ones, have no end: no thread is to wait for the rest of them."""
    assert not ChunkedEnd(body).come
