"""For how long a response is kept of whose result URL nobody was told yet."""

import pytest
from call_steps import HEAD, W1, fresh_calls, queued, response_stream, running

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.record import Attempt, Outcome, now_ms
from wsgi_timeout.store.streams import StreamReader

KEPT = 600


@pytest.fixture
def calls(redis_server):
    with fresh_calls(redis_server, "untold") as calls:
        yield calls


def finish(calls, call, **how):
    how = how or {"response": (HEAD, b"body")}
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, KEPT, **how)
    return calls.redis.ttl(keys.call(call.id))


def test_it_is_kept_for_who_waits(calls):
    """A small response that comes before anybody was told its URL outlives a short outage, and no more."""
    call = running(calls, untold_seconds=60)
    assert 60 < finish(calls, call) <= 120


def test_it_is_never_kept_for_longer_than_asked(calls):
    """A shorter `result_ttl` stands."""
    call = running(calls, untold_seconds=60)
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 5, response=(HEAD, b"body"))
    assert calls.redis.ttl(keys.call(call.id)) <= 5


@pytest.mark.parametrize("told", ["at once", "by a hop", "early", "long ago"])
def test_what_somebody_was_told_of_is_kept(calls, told):
    """A result whose URL may be known is kept for `result_ttl`, however it came to be known."""
    call = running(calls, untold_seconds=0 if told == "at once" else 60)
    if told == "by a hop":
        calls.join(call.id, "inbox")
    elif told == "early":
        calls.tell(call.id, KEPT)
    elif told == "long ago":
        calls.redis.hset(keys.call(call.id), "untold", "1")
    assert finish(calls, call) > KEPT - 60


def test_who_is_told_after_the_end_has_it_kept(calls):
    """A process that stops may tell a URL in the moment in which the call ends."""
    call = running(calls, untold_seconds=60)
    finish(calls, call)
    calls.tell(call.id, KEPT)
    assert calls.redis.ttl(keys.call(call.id)) > KEPT - 60
    calls.tell("fc-unknown", KEPT)
    assert not calls.redis.exists(keys.call("fc-unknown"))


@pytest.mark.parametrize("read", ["before its end", "never"])
def test_a_large_one_is_kept_while_it_is_read(calls, read):
    """One that its first request has begun to read is kept while that goes on; nobody else knows of it."""
    call = running(calls, untold_seconds=60)
    response_stream(calls, call.id, 1).offer(b"x")
    body = keys.response_body(call.id, 1)
    if read != "never":
        StreamReader(calls.scripts, call.id, "web", 1).poll()
        assert int(calls.redis.hget(keys.call(call.id), "untold")) > now_ms() + 10**11
    assert 60 < finish(calls, call, streamed=1) <= 120
    assert calls.redis.ttl(body) <= 120
    for key in (keys.call(call.id), body):
        calls.redis.expire(key, 30)
    calls.workers.reading([call.id, "fc-unknown"])
    assert min(calls.redis.ttl(keys.call(call.id)), calls.redis.ttl(body)) > 60


def test_who_reads_keeps_nothing_that_was_told_or_delivered(calls):
    """A result whose URL is known, or whose grace runs, ends when it would."""
    told = running(calls)
    finish(calls, told)
    delivered = running(calls, untold_seconds=60)
    finish(calls, delivered)
    calls.deliver(delivered.id, delivered.token, delivered.path, 1, 10.0)
    calls.redis.expire(keys.call(told.id), 30)
    calls.workers.reading([told.id, delivered.id])
    assert calls.redis.ttl(keys.call(told.id)) <= 30
    assert calls.redis.ttl(keys.call(delivered.id)) <= 10


def test_a_left_call_that_runs_is_kept_by_its_worker(calls):
    """The record of a safe call that runs for nobody goes with its pool, and not before."""
    call = running(calls)
    assert calls.redis.ttl(keys.call(call.id)) > KEPT
    calls.abandon(call.id)
    assert calls.redis.ttl(keys.call(call.id)) <= 60
    for key in (keys.call(call.id), rq_state.job_key(call.id)):
        calls.redis.expire(key, 5)
    assert calls.workers.renew([W1]) == []
    assert min(calls.redis.ttl(keys.call(call.id)), calls.redis.ttl(rq_state.job_key(call.id))) > 50


def test_a_left_post_that_runs_keeps_its_record(calls):
    """What changes something is accounted for, however long nobody renews it."""
    call = running(calls, method="POST")
    calls.abandon(call.id)
    assert calls.redis.ttl(keys.call(call.id)) > KEPT


def test_a_call_whose_client_had_left_before_is_kept_for_a_minute(calls):
    """Unless whoever waits for it gives it up, which it does at once."""
    call = queued(calls, left=True)
    assert calls.redis.ttl(keys.call(call.id)) <= 60
    calls.abandon(call.id)
    assert calls.look(call.id).outcome is Outcome.CANCELLED


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_what_a_dead_worker_ran_for_nobody(calls, method):
    """What its client left, and changes nothing, does not run again; it is kept for a minute."""
    call = running(calls, method=method)
    calls.abandon(call.id)
    assert calls.workers.recover(W1, None, "its death") == [
        (call.id, "lost" if method == "GET" else "requeued")
    ]
    if method == "GET":
        assert calls.redis.ttl(keys.call(call.id)) <= 60


def test_a_left_call_that_is_ended_is_kept_for_a_minute(calls):
    """A timeout, or a cancel, of a call that nobody can ask for."""
    call = running(calls)
    calls.abandon(call.id)
    assert calls.end(call.id, Outcome.TIMEOUT, "", None)
    assert calls.redis.ttl(keys.call(call.id)) <= 60
