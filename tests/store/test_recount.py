"""The bytes that a name's calls keep in Redis, counted and bounded; what RQ's own tools took away, ended."""

import pytest
import rq
from call_steps import HEAD, W1, a_call, a_request, fresh_calls, hold, queued, response_stream, running
from rq.serializers import JSONSerializer

from wsgi_timeout.errors import BytesFull, Fenced
from wsgi_timeout.store import keys, rq_state, workers
from wsgi_timeout.store.calls import forget
from wsgi_timeout.store.record import Attempt, Outcome, new_id
from wsgi_timeout.store.streams import Budget, Limits, StreamWriter

KIB = 1024


@pytest.fixture
def calls(redis_server, monkeypatch):
    monkeypatch.setattr(workers, "_RECOUNT_MS", 0)
    with fresh_calls(redis_server, "recount") as calls:
        yield calls


def total(calls):
    return int(calls.redis.hget(calls.buffered, "*") or 0)


def body_of(calls, call_id, most, size=100 * KIB):
    """Return what writes a request body, within a budget of `most` bytes."""
    budget = Budget(calls.buffered, most)
    return StreamWriter(calls.scripts, call_id, "web", Limits(size, size), ttl=60, budget=budget)


def test_queued_heads_are_counted_and_bounded(calls):
    """What is queued is counted when it is accepted; over the budget nothing is accepted."""
    large = a_request(environ={"REQUEST_METHOD": "GET", "HTTP_COOKIE": "x" * 10 * KIB})
    for _ in range(3):
        queued(calls, request=large)
    assert 30 * KIB < total(calls) < 33 * KIB
    with pytest.raises(BytesFull, match="max_buffered_bytes"):
        calls.enqueue(a_call(request=large, max_buffered_bytes=33 * KIB))
    assert calls.redis.llen(rq_state.queue_key(calls.name)) == 3
    calls.workers.recount()
    assert 30 * KIB < total(calls) < 33 * KIB


def test_a_body_over_the_budget_is_refused_before_its_call_is(calls):
    """Chunks of a request body are counted as they come, and refused while nothing was accepted."""
    upload = body_of(calls, new_id(), 10 * KIB)
    assert upload.offer(b"x" * 8 * KIB)
    assert total(calls) == 8 * KIB
    with pytest.raises(BytesFull):
        upload.offer(b"x" * 8 * KIB)
    with pytest.raises(BytesFull):
        body_of(calls, new_id(), 10 * KIB).offer(b"x" * 8 * KIB)


def test_a_response_over_the_budget_waits_for_a_reader(calls):
    """A response that nobody reads grows no more when the budget is used; the first chunk has a place."""
    call = running(calls, max_buffered_bytes=2 * KIB)
    limits = Limits(100 * KIB, 100 * KIB)
    writer = StreamWriter(
        calls.scripts,
        call.id,
        "worker",
        limits,
        ttl=60,
        attempt=1,
        head=HEAD.pack(),
        budget=Budget(calls.buffered),
    )
    assert writer.offer(b"x" * 4 * KIB)
    assert not writer.offer(b"x")
    calls.redis.hset(keys.response_body(call.id, 1), "readers", "reader")
    assert writer.offer(b"x")


@pytest.mark.parametrize("end", ["ended", "expired", "worker", "counter"])
def test_what_is_gone_is_counted_no_more(calls, end):
    """A recount finds what there is, whatever came between: an end, a TTL, a dead worker, a lost counter."""
    call = running(calls, request=a_request(environ={"HTTP_COOKIE": "x" * 10 * KIB}))
    response_stream(calls, call.id, 1).offer(b"x" * KIB)
    calls.workers.recount()
    assert 11 * KIB < total(calls) < 12 * KIB
    if end == "ended":
        calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, streamed=1)
        expected = KIB
    elif end == "expired":
        forget(calls.scripts, calls.name, {call.id: 1})
        expected = 0
    elif end == "worker":
        calls.workers.recover(W1, None, "its death")
        expected = 10 * KIB
    else:
        calls.redis.hset(calls.buffered, "*", 10**12)
        expected = 11 * KIB
    calls.workers.recount()
    assert expected <= total(calls) < expected + KIB


ENDS = {
    "done": lambda calls, call: finish(calls, call, response=(HEAD, b"body")),
    "streamed": lambda calls, call: finish(calls, call, streamed=1),
    "a value": lambda calls, call: finish(calls, call, value=b"value"),
    "values": lambda calls, call: finish(calls, call, chunks=2),
    "cancelled": lambda calls, call: calls.end(call.id, Outcome.CANCELLED, "", None),
    "lost": lambda calls, _call: calls.workers.recover(W1, None, "its death"),
    "left": lambda calls, call: (calls.abandon(call.id), finish(calls, call, streamed=1)),
    "forgotten": lambda calls, call: (finish(calls, call), forget(calls.scripts, calls.name, {call.id: 1})),
    "twice": lambda calls, call: [finish(calls, call, response=(HEAD, b"x")) for _ in range(2)],
}


def finish(calls, call, **how):
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, **how)


@pytest.mark.parametrize("max_attempts", [1, 2])
@pytest.mark.parametrize("end", ENDS)
def test_the_figure_is_exact_at_an_end(calls, end, max_attempts):
    """What an end frees is free with it, not with the next recount, which finds nothing to mend."""
    request = a_request(environ={"HTTP_COOKIE": "x" * 10 * KIB})
    call = running(calls, request=request, max_attempts=max_attempts)
    if end in {"streamed", "cancelled", "lost", "left", "forgotten"}:
        response_stream(calls, call.id, 1).offer(b"x" * KIB)
    if end in {"values", "cancelled", "lost", "left"}:
        for number in (0, 0, 1):
            calls.attempts.store(Attempt(call.id, 1, W1), number, b"v" * KIB)
    ENDS[end](calls, call)
    seen = total(calls)
    assert (seen < 5 * KIB) is (end != "lost" or max_attempts == 1)
    calls.workers.recount()
    assert total(calls) == seen


def test_the_figure_is_exact_when_a_queued_call_is_dropped(calls):
    """A request that its client has left takes no place any more."""
    kept, left = queued(calls), queued(calls, request=a_request(environ={"HTTP_COOKIE": "x" * 10 * KIB}))
    calls.abandon(left.id)
    assert total(calls) == int(calls.redis.hget(calls.buffered, kept.id))


def test_nothing_is_left_of_a_name_without_calls(calls):
    """When the last call is gone, so is its count."""
    call = queued(calls)
    calls.redis.unlink(keys.call(call.id))
    calls.workers.recount()
    assert not calls.redis.exists(calls.buffered)


def the_job(calls, call):
    return rq.job.Job.fetch(call.id, connection=calls.redis, serializer=JSONSerializer)


def cancel(calls, call):
    the_job(calls, call).cancel()


def delete(calls, call):
    the_job(calls, call).delete()


def empty(calls, _call):
    rq.Queue(rq_state.queue_name(calls.name), connection=calls.redis, serializer=JSONSerializer).empty()


def delete_queue(calls, _call):
    queue = rq.Queue(rq_state.queue_name(calls.name), connection=calls.redis, serializer=JSONSerializer)
    queue.delete()


def listed(calls):
    """Return RQ's list of cancelled jobs, which has no TTL."""
    return calls.redis.zrange(f"rq:canceled:{rq_state.queue_name(calls.name)}", 0, -1)


@pytest.mark.parametrize("take_away", [cancel, delete, empty, delete_queue])
def test_what_rq_takes_out_of_the_queue_is_cancelled(calls, take_away):
    """`job.cancel()`, `job.delete()` and `rq empty` end a queued call, and wake its waiters."""
    call = queued(calls, "waiting")
    take_away(calls, call)
    assert calls.workers.recount() == ([call.id], [])
    now = calls.look(call.id)
    assert (now.state, now.outcome) == ("ended", Outcome.CANCELLED)
    assert calls.redis.lrange(keys.inbox("waiting"), 0, -1) == [call.id.encode()]
    assert calls.workers.recount() == ([], [])
    assert listed(calls) == []


@pytest.mark.parametrize("take_away", [cancel, delete])
def test_a_pause_before_a_retry_is_cancelled_too(calls, take_away):
    """RQ's tools end a call that waits for its next run."""
    call = running(calls)
    calls.attempts.retry(Attempt(call.id, 1, W1), 60, "raised")
    take_away(calls, call)
    assert calls.workers.recount() == ([call.id], [])
    assert calls.look(call.id).outcome is Outcome.CANCELLED
    assert calls.redis.zcard(keys.delayed(calls.name)) == 0


@pytest.mark.parametrize("take_away", [cancel, delete, empty, delete_queue])
def test_a_call_that_runs_is_not_taken_away(calls, take_away):
    """RQ's tools stop no handler: its response is delivered, and nothing of the job is left."""
    call = running(calls)
    take_away(calls, call)
    assert calls.workers.recount() == ([], [])
    finish(calls, call, response=(HEAD, b"x"))
    assert calls.look(call.id).outcome is Outcome.DONE
    calls.workers.recount()
    assert listed(calls) == []
    assert not calls.redis.exists(rq_state.job_key(call.id), rq_state.started_key(calls.name))


def test_what_was_written_for_a_client_that_left_is_gone_at_once(calls):
    """A POST goes on without its client; its response so far is deleted, not at its end, and not counted."""
    call = running(calls, method="POST")
    stream = response_stream(calls, call.id, 1, budget=Budget(calls.buffered))
    assert stream.offer(b"x" * 10 * KIB)
    before = total(calls)
    calls.abandon(call.id)
    assert not calls.redis.exists(keys.response_body(call.id, 1))
    assert total(calls) <= before - 10 * KIB
    with pytest.raises(Fenced):
        stream.offer(b"y")
    assert calls.look(call.id).state == "running"


def test_what_runs_or_waits_goes_on(calls):
    """A recount ends nothing that RQ's tools have left alone: queued, held, running, queued again."""
    runs = running(calls)
    queued(calls)
    hold(calls)
    queued(calls)
    assert calls.workers.recount() == ([], [])
    calls.workers.recover(W1, None, "its death")
    assert calls.workers.recount() == ([], [])
    assert calls.look(runs.id).state == "queued"


def test_junk_stops_no_recount(calls):
    """Keys of other types, and numbers that are none, count as nothing; the next call is found."""
    calls.redis.hset(calls.buffered, mapping={"fc-string": "many", b"\xff": 7, "fc-list": 10**20})
    calls.redis.set(keys.call("fc-string"), "x")
    calls.redis.rpush(keys.call("fc-list"), "x")
    call = queued(calls)
    cancel(calls, call)
    assert calls.workers.recount() == ([call.id], [])
