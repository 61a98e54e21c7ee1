"""Where events of a stream end, and the ids that are put in: whole, byte by byte, in every kind of line."""

import pytest

from wsgi_timeout.http.events import EventMarker, media_type
from wsgi_timeout.store.messages import ResponseHead

LF = b"data: one\n\n: a comment\n\nevent: b\ndata: two\ndata: more\n\nretry: 9\n\ndata\n\ndata: cut"
#: The events of LF end there.
PLACES = (11, 55, 71)


def cut(data, sizes):
    """Yield pieces of `data` and the place where each begins; `sizes` repeats."""
    start = 0
    while start < len(data):
        for size in sizes:
            if data[start : start + size]:
                yield start, data[start : start + size]
            start += size


def marked(data, *sizes, **options):
    """Return what a marker makes of `data` in pieces, with places counted from its beginning."""
    marker = EventMarker(**options)
    out = b""
    for start, piece in cut(data, sizes or (len(data),)):
        whole, rest = marker.feed(piece, lambda place, start=start: b"%d" % (start + place))
        out += whole + rest
    return out


def ids(data):
    return [int(line.removeprefix(b"id: ")) for line in data.splitlines() if line.startswith(b"id: ")]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("sizes", [(), (1,), (2,), (3, 7), (5, 1, 1), (64,)])
def test_each_event_gets_an_id_however_it_is_cut(ending, sizes):
    """An event's id stands before the empty line that ends it, in the stream's own line ends."""
    data = LF.replace(b"\n", ending)
    out = marked(data, *sizes)
    expected = (
        b"".join(
            piece + b"id: %d\n" % place + b"\n"
            for piece, place in (
                (b"data: one\n", 11),
                (b": a comment\n\nevent: b\ndata: two\ndata: more\n", 55),
                (b"retry: 9\n\ndata\n", 71),
            )
        )
        + b"data: cut"
    )
    numbers = iter(ids(out.replace(b"\r", b"\n")))
    without = b"".join(line for line in out.splitlines(keepends=True) if not line.startswith(b"id: "))
    assert without == data
    assert out.replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"id: ") == 3
    if ending == b"\n":
        assert out == expected
        assert tuple(numbers) == PLACES


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_a_stream_goes_on_at_each_place(ending):
    """What follows an id's place is the next event, and nothing of the one before."""
    data = LF.replace(b"\n", ending)
    for place in ids(marked(data, 1).replace(b"\r", b"\n")):
        rest = data[place:].removeprefix(b"\n")
        assert rest.startswith((b": a comment", b"retry: 9", b"data: cut"))
        assert b"".join(EventMarker(resumed=True).feed(data[place:], lambda _: b"x")).endswith(rest[-9:])


@pytest.mark.parametrize(
    "data",
    [
        b"id: 1\ndata: one\n\nid: 2\ndata: two\n\n",
        b"data: one\nid\n\ndata: two\n\n",
        b"\xef\xbb\xbfid:7\ndata: one\n\ndata: two\n\n",
        b"id: 1\n\ndata: one\n\n",
    ],
)
@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_stream_with_ids_of_its_own_is_left_alone(data, size):
    """From the first id of the app on nothing is put in."""
    assert marked(data, size, retry_ms=500) == data


def test_an_id_of_the_app_ends_ours():
    """A client whose last id is the app's is not one that can come back to us."""
    marker = EventMarker()
    assert b"id: 9\n" in marker.feed(b"data: 1\n\n", lambda _: b"9")[0]
    assert marker.marked
    assert marker.feed(b"id: 1\ndata: 2\n\n", lambda _: b"9")[0] == b"id: 1\ndata: 2\n\n"
    assert not marker.marked


def test_a_byte_order_mark_is_no_part_of_a_field():
    """A stream that begins with a byte order mark has its first event marked too."""
    assert marked(b"\xef\xbb\xbfdata: 1\n\n", 1) == b"\xef\xbb\xbfdata: 1\nid: 12\n\n"


def test_retry_goes_out_once_and_never_over_the_apps():
    """The first event tells how soon to come back, unless the app has said so, or the client knows."""
    event = b"data: 1\n\n"
    assert marked(event * 2, 9, retry_ms=500) == b"data: 1\nretry: 500\nid: 9\n\ndata: 1\nid: 18\n\n"
    assert b"retry: 500" not in marked(b"retry: 3000\n\n" + event, retry_ms=500)
    assert b"retry" not in marked(event, retry_ms=500, resumed=True)


def test_what_ends_and_what_does_not():
    """The part up to the last end of an event is told from the rest; only then is the stream between two."""
    marker = EventMarker()
    assert marker.between
    assert marker.feed(b"data: 1\n\ndata: 2", lambda _: b"p") == (b"data: 1\nid: p\n\n", b"data: 2")
    assert not marker.between
    assert marker.feed(b"\n", lambda _: b"p") == (b"", b"\n")
    assert marker.feed(b"\n: ping\n\n", lambda _: b"q") == (b"id: q\n\n: ping\n\n", b"")
    assert marker.between


def test_a_large_event_is_passed_on_as_it_comes():
    """An event of any size is not held back, and no more of a line is kept than its field."""
    marker = EventMarker()
    out = [marker.feed(b"data: " + b"x" * 100_000, lambda _: b"p")]
    out += [marker.feed(b"x" * 100_000, lambda _: b"p") for _ in range(20)]
    assert all(rest and not whole for whole, rest in out)
    assert len(marker._line) <= 16
    assert marker.feed(b"\n\n", lambda _: b"p") == (b"\nid: p\n\n", b"")


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        ("200 OK", [("Content-Type", "Text/Event-Stream; charset=utf-8")], "text/event-stream"),
        (
            "200 OK",
            [("content-type", "application/x-ndjson"), ("Content-Encoding", "identity")],
            "application/x-ndjson",
        ),
        ("200 OK", [("Content-Type", "text/event-stream"), ("Content-Encoding", "gzip")], ""),
        ("206 Partial Content", [("Content-Type", "text/event-stream")], ""),
        ("200 OK", [], ""),
    ],
)
def test_what_has_places(status, headers, expected):
    """Only a whole response that is not compressed has places to go on at."""
    assert media_type(ResponseHead(status, headers)) == expected
