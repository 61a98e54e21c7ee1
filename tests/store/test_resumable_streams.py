"""What a stream keeps for a reader that comes back, and how a place in it is found."""

import pytest
from call_steps import HEAD, fresh_calls, running

from wsgi_timeout.errors import ResultTrimmed
from wsgi_timeout.store import keys
from wsgi_timeout.store.streams import Limits, StreamReader, StreamWriter, seek


@pytest.fixture
def calls(redis_server):
    with fresh_calls(redis_server, "resumable") as calls:
        yield calls


def stream(calls, limits):
    """Return the writer of a response, and a function that makes readers from a chunk on."""
    call = running(calls)
    writer = StreamWriter(calls.scripts, call.id, "writer", limits, ttl=60, attempt=1, head=HEAD.pack())
    return writer, lambda number=0: StreamReader(calls.scripts, call.id, "reader", 1, number=number)


def pass_through(writer, reader, count):
    """Write so many chunks of ten bytes, each of which is read and acknowledged."""
    for number in range(count):
        assert writer.offer(b"%010d" % number)
        assert reader.poll() == [b"%010d" % number]
        reader.poll()


def test_a_place_is_found_by_its_byte(calls):
    """Each byte of a stream lies in a chunk; the place behind the last one is the next chunk's beginning."""
    writer, _ = stream(calls, Limits(1000, 1000))
    for chunk in (b"aaa", b"b", b"cc"):
        writer.offer(chunk)
    found = [seek(calls.scripts, writer._call_id, 1, offset) for offset in range(8)]
    assert found == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (3, 0), None]
    assert seek(calls.scripts, writer._call_id, 2, 0) is None


def test_what_was_read_is_kept_for_the_window(calls):
    """Over its buffer a stream keeps what its reader may ask for again, up to the larger limit."""
    writer, reader_of = stream(calls, Limits(640, 1280, window=60))
    pass_through(writer, reader_of(), 20)
    assert [chunk for _ in range(5) for chunk in reader_of().poll()][:1] == [b"0000000000"]
    assert seek(calls.scripts, writer._call_id, 1, 15) == (1, 5)


def test_at_the_larger_limit_what_was_read_goes(calls):
    """A stream never keeps more than the larger limit; a place that went is not found, a later one is."""
    writer, reader_of = stream(calls, Limits(640, 1280, window=60))
    pass_through(writer, reader_of(), 50)
    assert seek(calls.scripts, writer._call_id, 1, 0) is None
    assert seek(calls.scripts, writer._call_id, 1, 299) is None
    assert seek(calls.scripts, writer._call_id, 1, 305) == (30, 5)
    assert reader_of(30).poll()[0] == b"0000000030"
    with pytest.raises(ResultTrimmed):
        reader_of().poll()


def test_after_the_window_what_was_read_goes(calls):
    """What was read longer ago than the window goes when the buffer is full."""
    writer, reader_of = stream(calls, Limits(640, 6400, window=60))
    reader = reader_of()
    key = keys.response_body(writer._call_id, 1)
    pass_through(writer, reader, 10)
    for _ in range(2):  # a minute passes, twice
        calls.redis.hincrby(key, "marked", -61)
        assert writer.offer(b"%010d" % writer.count)
        reader.poll()
        reader.poll()
    writer.offer(b"last")
    assert seek(calls.scripts, writer._call_id, 1, 0) is None
    assert int(calls.redis.hget(key, "kept")) <= 640
    assert seek(calls.scripts, writer._call_id, 1, 119) == (11, 9)


def test_without_a_window_the_buffer_counts(calls):
    """A stream that cannot be resumed keeps no more than its buffer."""
    writer, reader_of = stream(calls, Limits(640, 6400))
    pass_through(writer, reader_of(), 20)
    assert seek(calls.scripts, writer._call_id, 1, 50) is None
    assert int(calls.redis.hget(keys.response_body(writer._call_id, 1), "kept")) <= 640
