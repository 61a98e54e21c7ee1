"""Streams of request and response bodies, in a real server."""

import random

import pytest
from call_steps import HEAD, W1, a_call, a_request, fresh_calls, hold, running, woken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsgi_timeout.errors import Fenced, ResultTrimmed, StreamLost
from wsgi_timeout.store import keys
from wsgi_timeout.store.record import Attempt, Outcome, new_id
from wsgi_timeout.store.streams import CHUNK, READ_AHEAD, Limits, StreamReader, StreamWriter, split

ROOMY = Limits(1000, 1000)
#: Room for two chunks of four bytes, and no third.
TIGHT = Limits(130, 130)


@pytest.fixture
def calls(redis_server):
    with fresh_calls(redis_server, "streams") as calls:
        yield calls


def upload(calls, limits=ROOMY, call_id=None):
    """Return the writer of a request body, and a function that makes readers of it."""
    call_id = call_id or new_id()
    writer = StreamWriter(calls.scripts, call_id, "writer", limits, ttl=60)
    return writer, lambda inbox="reader": StreamReader(calls.scripts, call_id, inbox)


def download(calls, limits=ROOMY, **changes):
    """Return a running call, the writer of its response, and a function that makes readers of it."""
    call = running(calls, **changes)
    writer = StreamWriter(calls.scripts, call.id, "writer", limits, ttl=60, attempt=1, head=HEAD.pack())
    return call, writer, lambda inbox="reader": StreamReader(calls.scripts, call.id, inbox, 1)


def rest(reader):
    """Return all the chunks that a reader can have now."""
    found = []
    while chunks := reader.poll():
        found += chunks
    return found


def kept(calls, key):
    """Return the bytes of chunks that lie in a stream."""
    fields = calls.redis.hgetall(key)
    return sum(len(value) for field, value in fields.items() if field.isdigit())


# -- order, ends, replay


def test_chunks_come_in_order():
    """A body is cut into chunks that are together the body."""
    body = random.Random(1).randbytes(2 * CHUNK + 5)
    assert [len(piece) for piece in split(body)] == [CHUNK, CHUNK, 5]
    assert b"".join(split(body)) == body
    assert split(b"") == []


def test_every_byte_arrives(calls):
    """Chunks are read in the order in which they were written, byte for byte."""
    writer, reader_of = upload(calls)
    chunks = [bytes(range(256)), b"\x00", b"\r\n", b"last"]
    for chunk in chunks:
        assert writer.offer(chunk)
    assert rest(reader_of()) == chunks


def test_a_read_takes_a_few_chunks(calls):
    """One read returns a few chunks at most, and the next one goes on after them."""
    writer, reader_of = upload(calls)
    for number in range(READ_AHEAD + 1):
        writer.offer(b"%d" % number)
    reader = reader_of()
    assert len(reader.poll()) == READ_AHEAD
    assert reader.poll() == [b"%d" % READ_AHEAD]
    assert reader.poll() == []


@pytest.mark.parametrize("end", ["complete", "broken"])
def test_the_end_is_told_with_the_last_chunk(calls, end):
    """A reader that has not had the last chunk has not seen the end either."""
    writer, reader_of = upload(calls)
    for number in range(READ_AHEAD + 1):
        writer.offer(b"%d" % number)
    writer.close(end, 60)
    reader = reader_of()
    reader.poll()
    assert reader.end == ""
    assert (reader.poll(), reader.end) == ([b"%d" % READ_AHEAD], end)
    assert (reader.poll(), reader.end) == ([], end)


def test_an_end_after_the_last_chunk(calls):
    """A reader that has had all is told of the end when it comes."""
    writer, reader_of = upload(calls)
    writer.offer(b"all")
    reader = reader_of()
    assert (reader.poll(), reader.end) == ([b"all"], "")
    writer.close("complete", 60)
    assert (reader.poll(), reader.end) == ([], "complete")


def test_an_empty_body(calls):
    """A stream that was closed without a chunk is empty, and not missing."""
    writer, reader_of = upload(calls)
    writer.close("complete", 60)
    reader = reader_of()
    assert (reader.poll(), reader.end, reader.missing) == ([], "complete", False)


def test_the_first_end_counts(calls):
    """A body that broke off does not become complete, nor the other way round."""
    writer, reader_of = upload(calls)
    writer.close("broken", 60)
    writer.close("complete", 60)
    reader = reader_of()
    reader.poll()
    assert reader.end == "broken"


def test_a_body_whose_beginning_is_lost_never_looks_whole(calls):
    """When Redis has lost the first chunks no more are taken, and the body has no good end."""
    for state in ("not queued", "running"):
        call_id = new_id() if state == "not queued" else running(calls).id
        writer, reader_of = upload(calls, call_id=call_id)
        writer.offer(b"first")
        calls.redis.delete(keys.request_body(call_id))
        with pytest.raises(StreamLost, match="beginning"):
            writer.offer(b"second")
        with pytest.raises(StreamLost, match="beginning"):
            writer.close("complete", 60)
        reader = reader_of()
        assert (reader.poll(), reader.missing) == ([], True)
        writer.close("broken", 60)
        assert (reader.poll(), reader.end) == ([], "broken")


def test_the_rest_of_a_body_that_nobody_wants(calls):
    """A call that ended took its request's chunks along: there is no room for more, and no end."""
    call = running(calls)
    writer, _ = upload(calls, call_id=call.id)
    writer.offer(b"first")
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b""))
    assert not writer.offer(b"second")
    for end in ("complete", "broken"):
        writer.close(end, 60)
    assert not calls.redis.exists(keys.request_body(call.id))


def test_a_response_whose_beginning_is_lost(calls):
    """A handler whose response's first chunks were lost cannot go on with it."""
    call, writer, _ = download(calls)
    writer.offer(b"first")
    calls.redis.delete(keys.response_body(call.id, 1))
    with pytest.raises(StreamLost):
        writer.offer(b"second")


def test_what_fits_can_be_read_again(calls):
    """A body that fits the buffer is there for a second reader, whole, also after the first one left."""
    writer, reader_of = upload(calls, Limits(192, 192))
    for chunk in (b"aaaa", b"bbbb", b"cccc"):
        writer.offer(chunk)
    first = reader_of("first")
    assert rest(first) == [b"aaaa", b"bbbb", b"cccc"]
    first.leave()
    assert rest(reader_of("second")) == [b"aaaa", b"bbbb", b"cccc"]


def test_readers_do_not_disturb_each_other(calls):
    """Two readers of a body that fits each get all of it, at their own pace."""
    writer, reader_of = upload(calls)
    first, second = reader_of("first"), reader_of("second")
    got = {first: [], second: []}
    for number in range(10):
        writer.offer(b"%d" % number)
        got[first] += first.poll()
        if number % 3 == 0:
            got[second] += second.poll()
    for reader, chunks in got.items():
        assert chunks + rest(reader) == [b"%d" % number for number in range(10)]


# -- limits


def test_a_full_stream_takes_no_more(calls):
    """A chunk over the limit is not taken, and the writer may offer it again."""
    writer, reader_of = upload(calls, TIGHT)
    assert [writer.offer(chunk) for chunk in (b"aaaa", b"bbbb", b"cccc")] == [True, True, False]
    assert not writer.offer(b"cccc")
    assert writer.count == 2
    assert rest(reader_of()) == [b"aaaa", b"bbbb"]


def test_a_chunk_larger_than_the_buffer_passes(calls):
    """A single chunk that alone is over the limit is taken when nothing else lies there."""
    writer, reader_of = upload(calls, Limits(1, 1))
    reader = reader_of()
    for chunk in (b"large", b"larger", b"largest"):
        assert writer.offer(chunk)
        assert not writer.offer(b"next")
        assert reader.poll() == [chunk]
        assert reader.poll() == []


def test_only_what_was_read_is_trimmed(calls):
    """Room is made of what the next read has acknowledged, and of no more than is needed."""
    writer, reader_of = upload(calls, TIGHT)
    writer.offer(b"aaaa")
    writer.offer(b"bbbb")
    reader = reader_of()
    assert reader.poll() == [b"aaaa", b"bbbb"]
    assert not writer.offer(b"cccc")
    assert reader.poll() == []
    assert writer.offer(b"cccc")
    assert kept(calls, keys.request_body(writer._call_id)) == 8
    assert reader.poll() == [b"cccc"]


def test_a_trimmed_beginning_is_told(calls):
    """A second reader of a body whose beginning is gone gets an error, never a body that begins later."""
    writer, reader_of = upload(calls, TIGHT)
    reader = reader_of("first")
    for chunk in (b"aaaa", b"bbbb", b"cccc"):
        assert writer.offer(chunk)
        assert reader.poll() == [chunk]
        reader.poll()
    with pytest.raises(ResultTrimmed, match="read by somebody else"):
        reader_of("second").poll()
    writer.offer(b"dddd")
    assert reader.poll() == [b"dddd"]


def test_memory_is_bounded(calls):
    """A body of any length passes through a buffer that never holds more than its limit."""
    writer, reader_of = upload(calls, Limits(100, 100))
    reader = reader_of()
    sent, got, most = random.Random(2).randbytes(5000), b"", 0
    for start in range(0, len(sent), 40):
        while not writer.offer(sent[start : start + 40]):
            got += b"".join(reader.poll())
        most = max(most, kept(calls, keys.request_body(writer._call_id)))
    got += b"".join(rest(reader))
    assert got == sent
    assert most <= 100


@pytest.mark.parametrize("size", [1, 10, 100])
def test_small_chunks_are_bounded_by_what_they_cost(calls, size):
    """However small a handler's pieces are, their stream takes no more of Redis than twice its limit."""
    writer, _ = upload(calls, Limits(100_000, 100_000))
    while writer.offer(b"x" * size):
        pass
    assert writer.count > 500
    assert calls.redis.memory_usage(keys.request_body(writer._call_id), samples=0) < 200_000


def test_without_a_reader_the_larger_limit_counts(calls):
    """A body that nobody reads yet may grow further than one that is read."""
    _, writer, reader_of = download(calls, Limits(128, 256))
    assert [writer.offer(b"aaaa") for _ in range(5)] == [True, True, True, True, False]
    assert writer.has_reader is False
    reader = reader_of()
    reader.poll()
    assert not writer.offer(b"bbbb")
    assert writer.has_reader is True


def test_leaving_gives_the_larger_limit_back(calls):
    """When the last reader has left, the writer has a reader no more, and is woken to look again."""
    _, writer, reader_of = download(calls, Limits(64, 128))
    first, second = reader_of("first"), reader_of("second")
    for chunk in (b"aaaa", b"bbbb"):
        writer.offer(chunk)
        first.poll()
    first.poll()
    second.poll()
    assert writer.offer(b"cccc")
    assert not writer.offer(b"dddd")
    first.leave()
    assert not writer.offer(b"dddd")
    assert writer.has_reader is True
    calls.redis.delete(keys.inbox("writer"))
    second.leave()
    assert woken(calls, "writer") == {writer._call_id}
    assert writer.offer(b"dddd")
    assert writer.has_reader is False


def test_a_body_that_fits_is_written_ahead_of_its_reader(calls):
    """A slow reader does not stop the writer of a body that may lie there unread as a whole."""
    _, writer, reader_of = download(calls, Limits(64, 256))
    reader = reader_of()
    writer.offer(b"aaaa")
    reader.poll()
    assert [writer.offer(b"bbbb") for _ in range(4)] == [True, True, True, False]
    assert writer.has_reader is True


def test_leaving_what_is_not_there(calls):
    """Leaving a stream that is gone, or that was never joined, does nothing."""
    writer, reader_of = upload(calls)
    reader_of().leave()
    assert not calls.redis.exists(keys.request_body(writer._call_id))
    writer.offer(b"a")
    reader_of().leave()
    assert rest(reader_of()) == [b"a"]


# -- wakes


def test_a_chunk_wakes_its_readers(calls):
    """Every reader that has read all there is, and so waits, is woken by a chunk and by the end."""
    writer, reader_of = upload(calls)
    writer.offer(b"a")
    for inbox in ("first", "second"):
        assert rest(reader_of(inbox)) == [b"a"]
    for act in (lambda: writer.offer(b"b"), lambda: writer.close("complete", 60)):
        calls.redis.delete(keys.inbox("first"), keys.inbox("second"))
        act()
        assert woken(calls, "first") == woken(calls, "second") == {writer._call_id}


def test_a_chunk_wakes_no_reader_that_has_more_to_read(calls):
    """A reader that has not come to the last chunk yet looks for the next one by itself; the end wakes it."""
    writer, reader_of = upload(calls)
    writer.offer(b"a")
    reader_of("first").poll()
    writer.offer(b"b")
    assert woken(calls, "first") == set()
    writer.close("complete", 60)
    assert woken(calls, "first") == {writer._call_id}


def test_room_wakes_the_writer(calls):
    """A writer that found the stream full is woken by its first reader and by each acknowledgement."""
    writer, reader_of = upload(calls, TIGHT)
    writer.offer(b"aaaa")
    writer.offer(b"bbbb")
    assert woken(calls, "writer") == set()
    reader = reader_of()
    for _ in range(2):
        assert not writer.offer(b"cccc")
        reader.poll()
        assert woken(calls, "writer") == {writer._call_id}
        calls.redis.delete(keys.inbox("writer"))
    assert writer.offer(b"cccc")


def test_a_response_that_begins_wakes_its_waiters(calls):
    """The head lies in the call's record with the first chunk, and the call's waiters are woken."""
    call, writer, _ = download(calls, inbox="waiting")
    writer.offer(b"first")
    assert (calls.look(call.id).head, calls.look(call.id).body) == (HEAD, None)
    assert woken(calls, "waiting") == {call.id}
    calls.redis.delete(keys.inbox("waiting"))
    writer.offer(b"second")
    assert woken(calls, "waiting") == set()


# -- lost replies


def test_a_repeated_chunk_is_written_once(calls):
    """A chunk offered again under its number, after a lost reply, is taken once."""
    writer, reader_of = upload(calls)
    for number, chunk in enumerate((b"a", b"b")):
        writer.offer(chunk)
        writer.count = number
        assert writer.offer(chunk)
    assert rest(reader_of()) == [b"a", b"b"]


def test_a_repeated_chunk_of_a_full_stream(calls):
    """A repeat of the chunk that filled the stream is not taken for one that does not fit."""
    writer, _ = upload(calls, TIGHT)
    writer.offer(b"aaaa")
    writer.offer(b"bbbb")
    writer.count = 1
    assert writer.offer(b"bbbb")
    assert kept(calls, keys.request_body(writer._call_id)) == 8


def test_a_repeated_read_gives_the_same(calls):
    """A reader whose reply was lost reads the same chunks again."""
    writer, reader_of = upload(calls)
    writer.offer(b"a")
    writer.offer(b"b")
    reader = reader_of()
    assert reader.poll() == [b"a", b"b"]
    reader._number = 0
    assert reader.poll() == [b"a", b"b"]


@settings(
    derandomize=True,
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.binary(min_size=1, max_size=9), max_size=15),
    st.lists(st.sampled_from(["write", "write again", "read", "read again"]), max_size=60),
    st.integers(1, 600),
)
def test_any_order_of_steps_gives_the_body(calls, chunks, steps, limit):
    """Chunks, reads and repeats in any order give the whole body, within its limit."""
    writer, reader_of = upload(calls, Limits(limit, limit))
    reader, got, left = reader_of(), [], list(chunks)
    key = keys.request_body(writer._call_id)

    def write():
        if left and writer.offer(left[0]):
            last = left.pop(0)
            assert kept(calls, key) <= max(limit, len(last))

    def write_again():
        if writer.count:
            writer.count -= 1
            writer.offer(chunks[writer.count])

    def read():
        got.extend(reader.poll())

    def read_again():
        number = reader._number
        reader.poll()
        reader._number = number
        read()

    acts = {"write": write, "write again": write_again, "read": read, "read again": read_again}
    for step in steps:
        acts[step]()
    while left:
        write()
        read()
    writer.close("complete", 60)
    while reader.end != "complete":
        read()
    assert got == chunks


# -- fences


def test_an_ended_call_takes_no_chunk(calls):
    """The handler of a call that was ended from outside is stopped by its next chunk."""
    call, writer, reader_of = download(calls)
    writer.offer(b"a")
    calls.end(call.id, Outcome.CANCELLED, "", 600)
    with pytest.raises(Fenced, match="attempt 1"):
        writer.offer(b"b")
    assert rest(reader_of()) == [b"a"]


def test_an_old_attempt_takes_no_chunk(calls):
    """A worker that was given up writes nothing more, neither before nor after its call runs again."""
    call, old, _ = download(calls)
    old.offer(b"old")
    calls.workers.recover(W1, None, "died")
    with pytest.raises(Fenced):
        old.offer(b"older")
    calls.redis.rpush(keys.held("w2"), call.id)
    assert calls.attempts.take(call.id, "w2").attempt.number == 2
    with pytest.raises(Fenced):
        old.offer(b"oldest")
    new = StreamWriter(calls.scripts, call.id, "writer", ROOMY, ttl=60, attempt=2, head=HEAD.pack())
    new.offer(b"new")
    assert rest(StreamReader(calls.scripts, call.id, "reader", 2)) == [b"new"]


def test_an_old_attempt_acknowledges_nothing(calls):
    """A worker that was given up reads no more of a request: what it acknowledged the next one would miss."""
    call = a_call(method="PUT", request=a_request(body=None))
    writer, _ = upload(calls, TIGHT, call_id=call.id)
    for chunk in (b"1111", b"2222"):
        assert writer.offer(chunk)
    calls.enqueue(call)
    hold(calls)
    calls.attempts.take(call.id, W1)
    old = StreamReader(calls.scripts, call.id, "old", reader=1)
    assert old.poll() == [b"1111", b"2222"]
    assert calls.workers.recover(W1, None, "died") == [(call.id, "requeued")]
    # Its attempt counts on only when the next one begins.
    assert (old.poll(), old.missing) == ([], True)
    assert not writer.offer(b"3333")
    calls.redis.rpush(keys.held("w2"), call.id)
    calls.attempts.take(call.id, "w2")
    new = StreamReader(calls.scripts, call.id, "new", reader=2)
    assert new.poll() == [b"1111", b"2222"]


@pytest.mark.parametrize("lost", ["a chunk", "all"])
def test_a_response_that_is_not_whole_never_looks_so(calls, lost):
    """When Redis has lost chunks of a response before its end, it ends broken, and is listed as such."""
    call, writer, reader_of = download(calls)
    for chunk in (b"one", b"two"):
        writer.offer(chunk)
    stream = keys.response_body(call.id, 1)
    if lost == "all":
        calls.redis.delete(stream)
    else:
        calls.redis.hdel(stream, "1")
        calls.redis.hset(stream, "count", 1)
    for _ in range(2):
        calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, streamed=2)
    assert calls.look(call.id).outcome is Outcome.BROKEN
    reader = reader_of()
    assert rest(reader) == ([] if lost == "all" else [b"one"])
    assert reader.end == "broken"
    assert 0 < calls.redis.ttl(stream) <= 600


def test_a_request_body_has_no_fence(calls):
    """A request body is written whatever its call does: a handler may answer before it has read all."""
    call = running(calls)
    writer, _ = upload(calls, call_id=call.id)
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b""))
    assert writer.offer(b"rest")


def test_a_response_without_its_record_can_be_read(calls):
    """A response whose record expires between a look and the first byte is read, and makes no record anew."""
    call, writer, reader_of = download(calls)
    writer.offer(b"first")
    calls.redis.delete(keys.call(call.id))
    assert rest(reader_of()) == [b"first"]
    assert not calls.redis.exists(keys.call(call.id))


def test_the_first_byte_binds_a_response(calls):
    """A response counts as handed out from its first byte on, and not by a look at an empty stream."""
    call, writer, reader_of = download(calls)
    reader = reader_of()
    reader.poll()
    assert calls.redis.hget(keys.call(call.id), "handed") is None
    writer.offer(b"first")
    reader.poll()
    assert calls.redis.hget(keys.call(call.id), "handed") == b"1"


def test_a_request_body_binds_nothing(calls):
    """Reading a request body does not keep its call from running again."""
    call = running(calls)
    writer, reader_of = upload(calls, call_id=call.id)
    writer.offer(b"first")
    reader_of().poll()
    assert calls.redis.hget(keys.call(call.id), "handed") is None


def test_a_stream_that_is_not_there(calls):
    """A stream that has not begun, or is gone, is missing, and looking for it does not make it."""
    writer, reader_of = upload(calls)
    reader = reader_of()
    assert (reader.poll(), reader.missing, reader.end) == ([], True, "")
    assert not calls.redis.exists(keys.request_body(writer._call_id))
    writer.offer(b"a")
    assert (reader.poll(), reader.missing) == ([b"a"], False)
    calls.redis.delete(keys.request_body(writer._call_id))
    assert (reader.poll(), reader.missing) == ([], True)


def test_streams_have_a_ttl(calls):
    """A stream lives for its TTL after the last write, at least a second, and is never without one."""
    writer, _ = upload(calls)
    key = keys.request_body(writer._call_id)
    writer.offer(b"a")
    assert 0 < calls.redis.ttl(key) <= 60
    writer.close("complete", 0.1)
    assert 0 < calls.redis.pttl(key) <= 1000


@pytest.mark.parametrize("end", ["complete", "broken"])
def test_an_upload_that_was_closed_is_kept_for_its_ttl(calls, end):
    """From its end on a request body lives as long as it is told, and a second end does not change that."""
    writer, _ = upload(calls)
    writer.offer(b"all of it")
    for ttl in (20, 40):
        writer.close(end, ttl)
        assert 0 < calls.redis.ttl(keys.request_body(writer._call_id)) <= 20
