"""Streams of large chunks, and of more than a buffer that waits for its reader."""

import random

import pytest
from call_steps import HEAD, fresh_calls, running

from wsgi_timeout.errors import Fenced, ResultTrimmed, StreamLost
from wsgi_timeout.store import keys
from wsgi_timeout.store.streams import CHUNK, READ_AHEAD, Limits, StreamReader, StreamWriter


@pytest.fixture
def calls(redis_server):
    with fresh_calls(redis_server, "streams") as calls:
        yield calls


def download(calls, limits):
    """Return a running call, the writer of its response, and a function that makes readers of it."""
    call = running(calls)
    writer = StreamWriter(calls.scripts, call.id, "writer", limits, ttl=60, attempt=1, head=HEAD.pack())
    return call, writer, lambda inbox="reader": StreamReader(calls.scripts, call.id, inbox, 1)


def test_large_chunks_come_in_order(calls):
    """Large chunks, which no script returns, come in order too; of deleted ones it is told."""
    call, writer, read = download(calls, Limits(9 * CHUNK, 9 * CHUNK))
    reader, chunks = read(), [random.Random(number).randbytes(CHUNK) for number in range(READ_AHEAD + 3)]
    assert writer.offer(chunks[0])
    assert reader.poll() == chunks[:1]
    assert reader.poll() == []
    assert all(writer.offer(chunk) for chunk in chunks[1:])
    assert reader.poll() + reader.poll() == chunks[1:]
    late = read()
    assert late.poll() == chunks[:READ_AHEAD]
    calls.redis.hdel(keys.response_body(call.id, 1), READ_AHEAD + 1)
    with pytest.raises(ResultTrimmed):
        late.poll()


def test_a_writer_is_told_that_its_reader_is_behind(calls):
    """A writer learns that its reader has more to read than the buffer, until the reader has caught up."""
    _, writer, read = download(calls, Limits(130, 10_000))
    reader = read()

    def offered():
        assert writer.offer(b"1234")
        return writer.is_ahead

    assert not offered()
    reader.poll()
    assert not offered()
    assert offered()
    reader.poll()
    assert offered()
    reader.poll()
    reader.poll()
    assert not offered()


def test_what_was_read_goes_once_the_beginning_is_gone(calls):
    """A body that fits is kept for a second reader; of a larger one no chunk stays that was acknowledged."""
    call, writer, read = download(calls, Limits(400, 400))
    reader, held = read(), []
    for _ in range(9):
        assert writer.offer(b"1234")
        assert reader.poll() == [b"1234"]
        fields = calls.redis.hkeys(keys.response_body(call.id, 1))
        held.append(sum(field.isdigit() for field in fields))
    # A small chunk counts as 64 bytes, so six of them fit.
    assert held == [1, 2, 3, 4, 5, 6, 6, 2, 2]


def numbers(calls, call):
    return {int(field) for field in calls.redis.hkeys(keys.response_body(call.id, 1)) if field.isdigit()}


def test_a_chunk_that_is_refused_after_it_was_sent_is_not_kept(calls):
    """A large chunk goes past the script; of an attempt that is no longer the current one nothing stays."""
    call, writer, _ = download(calls, Limits(9 * CHUNK, 9 * CHUNK))
    chunk = bytes(CHUNK)
    assert not writer.begin(chunk)  # nothing is known of its room yet
    assert writer.offer(chunk)
    assert writer.begin(chunk)
    assert writer.finish()
    calls.redis.hset(keys.call(call.id), "attempt", 2)
    assert writer.begin(chunk)
    with pytest.raises(Fenced):
        writer.finish()
    assert numbers(calls, call) == {0, 1}
    calls.redis.delete(keys.response_body(call.id, 1))
    calls.redis.hset(keys.call(call.id), "attempt", 1)
    writer._has_room = True
    assert writer.begin(chunk)
    with pytest.raises(StreamLost):
        writer.finish()
    assert not calls.redis.exists(keys.response_body(call.id, 1))


def test_a_large_chunk_may_come_twice(calls):
    """A chunk whose reply was lost is sent again, and is there once, or not any more if it was read."""
    call, writer, read = download(calls, Limits(2 * CHUNK, 2 * CHUNK))
    reader, chunk = read(), bytes(CHUNK)
    for _ in range(4):
        assert writer.offer(chunk)
        assert reader.poll() == [chunk]
    assert reader.poll() == []
    assert writer.offer(chunk)
    assert numbers(calls, call) == {4}
    for number in (2, 4):
        writer.count, writer._has_room = number, True
        assert writer.begin(chunk)
        assert writer.finish()
    assert numbers(calls, call) == {4}
    assert reader.poll() == [chunk]


def test_a_server_that_has_lost_its_scripts_gets_them_again(calls):
    """A script that is missing within the transaction is sent whole, and the chunk is there once."""
    call, writer, read = download(calls, Limits(9 * CHUNK, 9 * CHUNK))
    assert writer.offer(bytes(CHUNK))
    calls.redis.script_flush()
    assert writer.offer(b"1" * CHUNK)
    assert numbers(calls, call) == {0, 1}
    assert read().poll() == [bytes(CHUNK), b"1" * CHUNK]
