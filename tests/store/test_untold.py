"""For how long a response is kept of whose result URL nobody was told yet."""

import pytest
from call_steps import HEAD, W1, fresh_calls, response_stream, running

from wsgi_timeout.store import keys
from wsgi_timeout.store.record import Attempt, Outcome

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


def test_a_response_that_is_being_read_is_kept(calls):
    """A larger one is read for as long as that takes."""
    call = running(calls, untold_seconds=60)
    response_stream(calls, call.id, 1).offer(b"x")
    assert finish(calls, call, streamed=1) > KEPT - 60


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
