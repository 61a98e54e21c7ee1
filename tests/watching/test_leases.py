"""Watching leases: who is given up for dead, and who is not."""

import logging
import signal
import time

import pytest
import redis
import rq
from call_steps import W1, W2, be_born, fresh_calls, hold, queue, queued, running
from harness import RedisServer, until
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.record import Outcome
from wsgi_timeout.store.workers import Workers
from wsgi_timeout.watching import leases
from wsgi_timeout.watching.leases import WORKER_DIED, LeaseWatch
from wsgi_timeout_jobs.pool.queue_keeper import QueueKeeper

#: Seconds of silence after which a worker is lost here.
LEASE = 0.3


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch):
    monkeypatch.setattr(leases, "LOOK_SECONDS", 0.1)


@pytest.fixture
def calls(redis_server):
    with fresh_calls(redis_server, "recovery") as calls:
        yield calls


@pytest.fixture
def own_server():
    """A server that a test may stop."""
    server = RedisServer()
    yield server
    server.close()


def lives(calls, worker=W1):
    return calls.redis.hexists(keys.leases(calls.name), worker)


def look_until(watch, condition, seconds=20.0):
    """Look again and again until a condition is true; returns the seconds that it took."""
    began = time.monotonic()
    until(lambda: watch.step() or condition(), seconds)
    return time.monotonic() - began


def look_for(watch, seconds):
    deadline = time.monotonic() + seconds
    look_until(watch, lambda: time.monotonic() >= deadline)


def test_a_silent_worker_is_lost(calls, caplog):
    """A worker whose lease stays the same for `lease_seconds` is lost, no sooner, and its call runs again."""
    call = running(calls)
    with caplog.at_level(logging.WARNING):
        took = look_until(LeaseWatch(calls.workers, LEASE), lambda: not lives(calls))
    assert took >= LEASE
    assert queue(calls) == [call.id]
    assert f"worker {W1}: no sign of life for 0.3 s" in caplog.text
    assert f"{call.id} requeued" in caplog.text


def test_a_lost_call_says_why(calls):
    """A call that must not run twice ends as lost, with the reason."""
    call = running(calls, method="POST")
    look_until(LeaseWatch(calls.workers, LEASE), lambda: not lives(calls))
    assert calls.look(call.id).outcome is Outcome.LOST
    assert calls.look(call.id).detail == WORKER_DIED


def test_nothing_comes_late_to_a_lost_worker(calls):
    """Redis moves no call to a worker that was lost, however late it executes a command of before."""
    look_until(LeaseWatch(calls.workers, LEASE), lambda: not lives(calls))
    be_born(calls, W2)
    call = queued(calls)
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        hold(calls)
    assert queue(calls) == [call.id]


def test_what_a_stock_worker_failed_before_it_began_is_queued_again(calls):
    """A call that RQ counts as failed, as when its process was killed at once, and that never began, runs."""
    begun, call = running(calls), queued(calls)
    calls.redis.lpop(rq_state.queue_key(calls.name))
    queue_of_rq = rq.Queue(f"wt:{calls.name}", connection=calls.redis, serializer=JSONSerializer)
    for call_id in (call.id, begun.id):
        job = Job.fetch(call_id, connection=calls.redis, serializer=JSONSerializer)
        queue_of_rq.failed_job_registry.add(job, ttl=3600)
        job.set_status(JobStatus.FAILED)
        calls.redis.expire(rq_state.job_key(call_id), 60)
    calls.workers.renew([W1])
    watch = LeaseWatch(calls.workers, LEASE)
    look_until(watch, lambda: calls.workers.renew([W1]) == [] and queue(calls) == [call.id])
    assert queue_of_rq.failed_job_registry.get_job_ids() == [begun.id]
    assert calls.redis.hget(rq_state.job_key(call.id), "status") == b"queued"
    assert calls.redis.ttl(rq_state.job_key(call.id)) > 60
    hold(calls)
    assert calls.attempts.take(call.id, W1).attempt.number == 1


def test_what_is_no_counter_is_lost_as_a_silent_worker_is(calls):
    """A lease that was overwritten ends no observer: its worker, which cannot renew it, is lost in time."""
    call = running(calls)
    calls.redis.hset(keys.leases(calls.name), W1, "junk")
    look_until(LeaseWatch(calls.workers, LEASE), lambda: not lives(calls))
    assert queue(calls) == [call.id]


def test_a_renewed_lease_lives(calls):
    """A worker that renews its lease lives, however long it works; a silent one is lost."""
    call = running(calls)
    be_born(calls, W2)
    watch = LeaseWatch(calls.workers, LEASE)
    look_until(watch, lambda: calls.workers.renew([W1]) == [] and not lives(calls, W2))
    deadline = time.monotonic() + 2 * LEASE
    look_until(watch, lambda: calls.workers.renew([W1]) or time.monotonic() >= deadline)
    assert lives(calls)
    assert calls.look(call.id).state == "running"


def test_a_new_observer_begins_with_its_own_view(calls):
    """How long a lease was silent before an observer came says nothing to it."""
    old, new = LeaseWatch(calls.workers, LEASE), LeaseWatch(calls.workers, LEASE)
    old.step()
    half = time.monotonic() + LEASE / 2
    until(lambda: time.monotonic() >= half)
    new.step()
    look_for(new, LEASE / 2)
    assert lives(calls)
    look_until(old, lambda: not lives(calls))


def test_of_two_observers_one_recovers(calls, caplog):
    """Two observers of one dead worker settle its calls once."""
    call = running(calls)
    watches = [LeaseWatch(calls.workers, LEASE), LeaseWatch(calls.workers, LEASE)]
    with caplog.at_level(logging.WARNING):
        for watch in watches:
            watch.step()
        deadline = time.monotonic() + LEASE + 0.05
        until(lambda: [watch.step() for watch in watches] and time.monotonic() >= deadline)
    assert queue(calls) == [call.id]
    assert caplog.text.count("no sign of life") == 1


def test_a_changed_lease_begins_anew(calls):
    """One renewal, as late as may be, gives a worker the whole time again."""
    watch = LeaseWatch(calls.workers, LEASE)
    look_for(watch, LEASE - 0.1)
    calls.workers.renew([W1])
    look_for(watch, LEASE - 0.1)
    assert lives(calls)


def test_an_outage_in_between_proves_nothing(own_server):
    """A worker that could not renew its lease while Redis was away is not lost when it is back."""
    with fresh_calls(own_server, "recovery") as calls:
        running(calls)
        watch = LeaseWatch(calls.workers, LEASE)
        watch.step()
        began = time.monotonic()
        own_server.stop(signal.SIGKILL)
        watch.step()
        own_server.start()
        until(lambda: time.monotonic() - began > LEASE)
        watch.step()
        assert lives(calls)
        assert look_until(watch, lambda: not lives(calls)) > LEASE - 0.1


def test_a_stopped_observer_has_no_view(calls):
    """Time in which an observer could not look does not count: the workers may have stopped with it."""
    call = running(calls)
    watch = LeaseWatch(calls.workers, LEASE)
    look_for(watch, LEASE - 0.1)
    resumed = time.monotonic() + 2 * LEASE
    until(lambda: time.monotonic() >= resumed)
    watch.step()
    assert lives(calls)
    assert calls.look(call.id).state == "running"
    assert look_until(watch, lambda: not lives(calls)) >= LEASE - 0.1


def test_other_names_are_not_looked_at(calls):
    """A watch of one name leaves the workers of another alone."""
    be_born(calls, W2)
    look_for(LeaseWatch(Workers(calls.redis, "another"), LEASE), LEASE + 0.1)
    assert lives(calls, W1)
    assert lives(calls, W2)


def popped(calls):
    """Move the next call to where a stock worker of RQ keeps it until it has started the job."""
    calls.redis.lmove(rq_state.queue_key(calls.name), rq_state.intermediate_key(calls.name), "LEFT", "RIGHT")


def test_what_a_stock_worker_lost_goes_back(calls, caplog):
    """A call that a stock worker of RQ popped and never started is put back at the front."""
    call, later = queued(calls), queued(calls)
    popped(calls)
    watch = LeaseWatch(calls.workers, LEASE)
    watch.step()
    assert queue(calls) == [later.id]
    with caplog.at_level(logging.WARNING):
        took = look_until(watch, lambda: calls.workers.renew([W1]) or queue(calls) == [call.id, later.id])
    assert took >= LEASE - 0.1
    assert "popped by an rq worker and not started" in caplog.text


def test_what_a_stock_worker_started_does_not(calls):
    """A call that left RQ's intermediate list in time is not put back."""
    call = queued(calls)
    popped(calls)
    watch = LeaseWatch(calls.workers, LEASE)
    watch.step()
    calls.redis.delete(rq_state.intermediate_key(calls.name))
    calls.attempts.hold(call.id, W1)
    calls.attempts.take(call.id, W1)
    deadline = time.monotonic() + LEASE + 0.1
    look_until(watch, lambda: calls.workers.renew([W1]) or time.monotonic() >= deadline)
    assert queue(calls) == []
    assert calls.look(call.id).state == "running"


def test_a_pool_looks_on_when_one_of_its_workers_is_gone(calls):
    """A pool goes on looking after all when a worker of its own died, or was given up by others."""
    keeper = QueueKeeper(calls.redis, calls.name, LEASE)
    be_born(calls, W2)
    assert keeper.renew([W1, W2]) == []
    keeper.worker_died(W1, "died")
    keeper.settle()
    keeper.look()
    calls.workers.recover(W2, None, "given up")
    keeper.look()
    assert keeper.renew([W2]) == [W2]


def test_a_held_call_waits_for_the_lease(calls):
    """A call that a worker holds and has not begun stays there while the worker may live."""
    call = queued(calls)
    assert hold(calls) == call.id
    watch = LeaseWatch(calls.workers, LEASE)
    watch.step()
    assert queue(calls) == []
    look_until(watch, lambda: queue(calls) == [call.id])
