"""What writes a response body: blocks of every size arrive in their order, however fast they come."""

import math
import random
import time

import pytest
from call_steps import HEAD, a_request, fresh_calls, running
from harness import until

from wsgi_timeout.store.streams import Limits, StreamReader, StreamWriter
from wsgi_timeout.watching.listener import Listener
from wsgi_timeout_jobs.attempt.body_writer import BodyWriter
from wsgi_timeout_jobs.process.interrupts import Interrupts

MIB = 1024 * 1024


@pytest.fixture
def calls(redis_server):
    with fresh_calls(redis_server, "bodies") as calls:
        yield calls


def written(calls, blocks):
    """Write what `blocks` yields for a writer as a body; return the chunks of which it has been made."""
    call, limits = running(calls), Limits(64 * MIB, 64 * MIB)
    stream = StreamWriter(calls.scripts, call.id, "writer", limits, ttl=60, attempt=1, head=HEAD.pack())
    listener = Listener(lambda: calls.redis)
    writer = BodyWriter(
        stream, call.id, listener, Interrupts(lambda: ""), a_request(), reader_timeout=math.inf
    )
    try:
        for block in blocks(writer):
            writer.send(block)
        writer.drain()
    finally:
        writer.abandon()
    reader, found = StreamReader(calls.scripts, call.id, "reader", 1), []
    while chunks := reader.poll():
        found += chunks
    return found


@pytest.mark.parametrize("seed", range(3))
def test_blocks_stay_in_order(calls, seed):
    """Short blocks, which are merged, and long ones between them, now and then a pause, come as they were."""
    choice = random.Random(seed)

    given = []

    def blocks(_writer):
        for _ in range(200):
            some = [choice.randbytes(choice.randint(1, 300)) for _ in range(choice.randint(0, 300))]
            some.append(choice.randbytes(choice.choice([1, 5_000, 300_000])))
            given.extend(some)
            yield from some
            time.sleep(choice.choice([0, 0, 0, 0.006]))

    assert b"".join(written(calls, blocks)) == b"".join(given)


def test_blocks_that_are_apart_leave_one_by_one(calls):
    """A block leaves before the app yields the next one, also after many fast ones."""

    def blocks(writer):
        yield from (b"fast" for _ in range(1_000))
        for _ in range(5):
            before = writer.count
            yield b"slow"
            until(lambda before=before: writer.count > before, what="the block's end")
            time.sleep(0.006)

    assert b"".join(written(calls, blocks)) == b"fast" * 1_000 + b"slow" * 5
