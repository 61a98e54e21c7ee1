"""Lists for people: of live workers, and of failed calls."""

import os
import socket

import pytest
from call_steps import HEAD, W1, W2, fresh_calls, hold, queued, running

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.call_list import list_calls
from wsgi_timeout.store.failed_calls import failed_calls, names
from wsgi_timeout.store.record import Outcome
from wsgi_timeout.store.worker_list import list_workers


@pytest.fixture
def calls(redis_server):
    with fresh_calls(redis_server, "lists", workers=(W1, W2)) as calls:
        yield calls


def test_a_worker_is_listed_with_what_rq_knows_of_it(calls):
    """A live worker stands in the list with machine, process, state, and the calls that it holds."""
    held = running(calls)
    birth = rq_state.worker_fields(calls.name, os.getpid(), socket.gethostname(), ("3.0.0", "3.11"))
    calls.redis.hset(rq_state.worker_key(W1), mapping=birth)
    first, second = list_workers(calls.redis, calls.name)
    assert (first.worker, first.hostname, first.pid) == (W1, socket.gethostname(), str(os.getpid()))
    assert (first.calls, second.calls) == (held.id, "")
    assert (first.state, first.since, first.target) == (birth["state"], birth["birth"], "legacy:app")


def test_a_worker_without_a_description_is_listed(calls):
    """Junk in the place of what RQ and we know of a worker leaves its name in the list."""
    for key in (rq_state.worker_key(W1), keys.worker(W1)):
        calls.redis.delete(key)
        calls.redis.set(key, "junk")
    first, second = list_workers(calls.redis, calls.name)
    assert (first.worker, first.hostname, first.target, first.done) == (W1, "", "", "0")
    assert (second.worker, second.target) == (W2, "legacy:app")


def test_as_many_failed_calls_are_listed_as_were_asked_for(calls):
    """The list of failed calls has the last ones, up to its limit."""
    ids = [queued(calls).id for _ in range(4)]
    for call_id in ids:
        calls.end(call_id, Outcome.CANCELLED, "cancelled", 600)
    assert [call.id for call in failed_calls(calls.redis, calls.name, 2)] == [ids[3], ids[2]]


def test_a_list_of_queues_that_was_replaced_is_made_anew(calls):
    """The names are found again after others have deleted the list of queues, or put junk in its place."""
    for change in (calls.redis.delete, lambda key: calls.redis.set(key, "junk")):
        change(rq_state.QUEUES)
        assert names(calls.redis) == []
        calls.workers.mend()
        assert names(calls.redis) == [calls.name]


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.RAISED])
def test_a_call_that_ran_twice_is_listed_with_its_last_wait(calls, outcome):
    """The wait of an ended call that ran twice is the one before its last run; its age is the whole."""
    calls.redis.delete(keys.done(calls.name), keys.failed(calls.name))
    call = running(calls, W1)
    calls.redis.hincrby(keys.call(call.id), "created", -60_000)
    calls.workers.recover(W1, None, "died")
    hold(calls, W2)
    attempt = calls.attempts.take(call.id, W2).attempt
    assert attempt.queue_seconds < 30
    response = (HEAD, b"") if outcome == Outcome.DONE else None
    calls.attempts.finish(attempt, outcome, 600, response=response)
    (listed,) = list_calls(calls.redis, calls.name, ("ended",), 10)
    assert (listed.attempts, listed.age > 59, listed.queued_for < 30) == (2, True, True)
