"""The contract with RQ: what we write into its keys, read back with RQ itself."""

import socket
import sys
from datetime import datetime, timedelta, timezone

import pytest
import rq
from call_steps import HEAD, W1, W2, a_request, be_born, fresh_calls, hold, queued, running
from rq.intermediate_queue import IntermediateQueue
from rq.job import JobStatus
from rq.registry import FailedJobRegistry, StartedJobRegistry, clean_registries
from rq.serializers import JSONSerializer
from rq.utils import utcformat, utcparse
from rq.worker import WorkerStatus

from wsgi_timeout.errors import Fenced, NoWorker
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.record import Attempt, Outcome
from wsgi_timeout.store.workers import SHOWN_RENEWALS

NAME = "contract"


@pytest.fixture
def calls(redis_server):
    with fresh_calls(redis_server, NAME) as calls:
        yield calls


def the_queue(calls):
    return rq.Queue(rq_state.queue_name(NAME), connection=calls.redis, serializer=JSONSerializer)


def the_job(calls, call):
    return rq.job.Job.fetch(call.id, connection=calls.redis, serializer=JSONSerializer)


def started(calls):
    """Return the calls that RQ takes for running, without its clean-up."""
    return StartedJobRegistry(queue=the_queue(calls)).get_job_ids(cleanup=False)


def recently(moment):
    return datetime.now(timezone.utc) - timedelta(seconds=10) < moment <= datetime.now(timezone.utc)


# -- the queue


def test_the_queue(calls):
    """RQ lists our queue, counts its calls and knows their order."""
    first, second = queued(calls), queued(calls)
    queue = the_queue(calls)
    assert rq.Queue.all(connection=calls.redis, serializer=JSONSerializer) == [queue]
    assert (queue.name, queue.key) == ("wt:contract", rq_state.queue_key(NAME))
    assert (queue.count, queue.job_ids) == (2, [first.id, second.id])
    assert [job.id for job in queue.jobs] == [first.id, second.id]
    assert (queue.get_job_position(first.id), queue.get_job_position(second.id)) == (0, 1)


def test_names_and_queues():
    """A name leads to its queue's name and back."""
    assert rq_state.queue_name("legacy") == "wt:legacy"
    assert rq_state.name_of_queue("wt:legacy") == "legacy"
    assert rq_state.name_of_queue("wt:legacy:functions") == "legacy:functions"


def test_our_keys_are_rqs(calls):
    """The names of RQ's keys are those that RQ itself uses."""
    queue, call = the_queue(calls), queued(calls)
    assert rq_state.job_key(call.id) == rq.job.Job.key_for(call.id)
    assert rq_state.started_key(NAME) == StartedJobRegistry(queue=queue).key
    assert rq_state.intermediate_key(NAME) == IntermediateQueue(queue.key, calls.redis).key
    assert rq_state.worker_key(W1) == rq.Worker.redis_worker_namespace_prefix + W1
    assert rq.Worker.redis_workers_keys == rq_state.WORKERS
    assert rq.Queue.redis_queues_keys == rq_state.QUEUES
    assert rq.worker_registration.WORKERS_BY_QUEUE_KEY % queue.name == rq_state.workers_of_queue_key(NAME)
    assert rq.suspension.WORKERS_SUSPENDED == rq_state.SUSPENDED
    assert rq_state.command_channel(W1) == rq.command.PUBSUB_CHANNEL_TEMPLATE % W1


# -- the job


def test_a_queued_job(calls):
    """RQ reads a queued call as a job: one function, its id as the only argument, and a description."""
    call = queued(calls, method="POST", path="/ocr", request=a_request(timeout=30.5))
    job = the_job(calls, call)
    assert job.get_status() is JobStatus.QUEUED
    assert (job.func_name, job.args, job.kwargs) == (rq_state.ENTRY_POINT, [call.id], {})
    assert job.instance is None
    assert (job.origin, job.description) == ("wt:contract", "POST /ocr")
    assert recently(job.enqueued_at)
    assert job.created_at == job.enqueued_at
    assert (job.started_at, job.ended_at, job.worker_name) == (None, None, None)


def test_rqs_own_limits_come_after_ours(calls):
    """RQ's timeout is above ours, which acts first; RQ keeps no ended job, and a failed one not for long."""
    job = the_job(calls, queued(calls, request=a_request(timeout=30.5)))
    assert job.timeout == 90
    assert job.result_ttl == 0
    assert 0 < job.failure_ttl <= 3600
    assert not job.retries_left


def test_a_token_is_not_shown(calls):
    """What RQ shows and logs of a job holds nothing of its secrets: no token, no query, no header."""
    call = queued(calls, request=a_request(environ={"REQUEST_METHOD": "GET", "HTTP_COOKIE": "secret"}))
    shown = str(calls.redis.hgetall(rq_state.job_key(call.id)))
    assert call.token not in shown
    assert "secret" not in shown


def test_a_running_job(calls):
    """RQ shows which worker runs a call, and since when."""
    call = running(calls)
    job = the_job(calls, call)
    assert job.get_status() is JobStatus.STARTED
    assert job.worker_name == W1
    assert recently(job.started_at)
    assert started(calls) == [call.id]
    assert the_queue(calls).count == 0


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_ended_job(calls, outcome):
    """To RQ a call that has ended is gone, as a job without a result TTL, and nothing counts as running."""
    call = running(calls)
    calls.attempts.finish(Attempt(call.id, 1, W1), outcome, 600, response=(HEAD, b""))
    assert not rq.job.Job.exists(call.id, connection=calls.redis)
    assert started(calls) == []


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.LOST])
def test_a_job_that_was_ended_from_outside(calls, outcome):
    """A call that is cancelled or lost while it runs is gone for RQ as well."""
    call = running(calls)
    calls.end(call.id, outcome, "", 600)
    assert not rq.job.Job.exists(call.id, connection=calls.redis)
    assert started(calls) == []


def test_a_stopped_job_of_a_stock_worker(calls):
    """A call whose process RQ killed on command is cancelled: it is not run again, nor lost."""
    call = queued(calls)
    hold(calls)
    calls.attempts.take(call.id, W1, stock=True)
    the_job(calls, call).set_status(JobStatus.STOPPED)
    assert calls.workers.recover(W1, None, "died") == [(call.id, "cancelled")]
    assert calls.look(call.id).outcome is Outcome.CANCELLED


def test_a_stock_workers_name_stays_in_its_job(calls):
    """RQ's commands go to the worker that its job names: a stock worker's own name is not replaced."""
    call = queued(calls)
    job = the_job(calls, call)
    job.worker_name = "theirs"
    job.save()
    hold(calls)
    calls.attempts.take(call.id, W1, stock=True)
    assert the_job(calls, call).worker_name == "theirs"
    # Run again by a pool, it is the pool's.
    calls.workers.recover(W1, None, "died")
    be_born(calls, W2)
    hold(calls, W2)
    calls.attempts.take(call.id, W2)
    assert the_job(calls, call).worker_name == W2
    calls.attempts.finish(Attempt(call.id, 2, W2), Outcome.DONE, 600, response=(HEAD, b""))
    assert not rq.job.Job.exists(call.id, connection=calls.redis)


def test_the_job_of_a_stock_worker(calls):
    """A job that RQ's own worker runs stays, until that worker deletes it."""
    call = queued(calls)
    hold(calls)
    calls.attempts.take(call.id, W1, stock=True)
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b""))
    assert rq.job.Job.exists(call.id, connection=calls.redis)


def test_a_job_that_runs_again(calls):
    """A recovered call is queued for RQ too, and its second run is listed once."""
    call = running(calls)
    calls.workers.recover(W1, None, "died")
    assert the_job(calls, call).get_status() is JobStatus.QUEUED
    assert started(calls) == []
    be_born(calls, W2)
    hold(calls, W2)
    calls.attempts.take(call.id, W2)
    assert the_job(calls, call).worker_name == W2
    assert started(calls) == [call.id]


def test_a_delayed_job(calls):
    """A function that waits for its retry is scheduled, then queued, for RQ."""
    call = running(calls)
    calls.attempts.retry(Attempt(call.id, 1, W1), 0, "raised")
    assert the_job(calls, call).get_status() is JobStatus.SCHEDULED
    calls.workers.release()
    assert the_job(calls, call).get_status() is JobStatus.QUEUED


def test_a_job_goes_with_its_call(calls):
    """A job lives as long as its call's record, and no longer."""
    call = queued(calls)
    job, record = calls.redis.ttl(rq_state.job_key(call.id)), calls.redis.ttl(keys.call(call.id))
    assert 0 < job <= record + 1
    assert 0 < record <= job + 1
    calls.end(call.id, Outcome.CANCELLED, "", 600)
    assert not rq.job.Job.exists(call.id, connection=calls.redis)


# -- RQ's maintenance


def test_rqs_maintenance_leaves_a_running_call_alone(calls):
    """The clean-up of RQ's registries never finds a running call, though RQ hears no heartbeat of it."""
    call = running(calls)
    queue = the_queue(calls)
    clean_registries(queue)
    StartedJobRegistry(queue=queue).cleanup(
        timestamp=(datetime.now(timezone.utc) + timedelta(days=365)).timestamp()
    )
    job = the_job(calls, call)
    assert job.get_status() is JobStatus.STARTED
    assert started(calls) == [call.id]
    assert FailedJobRegistry(queue=queue).get_job_ids() == []
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b"body"))
    assert calls.look(call.id).body == b"body"


def test_counting_the_started_jobs_removes_none(calls):
    """`rq info` counts the started jobs, which cleans up first; a running call is counted, and stays."""
    call = running(calls)
    assert the_queue(calls).started_job_registry.count == 1
    assert started(calls) == [call.id]


# -- workers


def test_a_worker(calls):
    """RQ lists our workers with their queue, process, host and state."""
    (worker,) = rq.Worker.all(connection=calls.redis, serializer=JSONSerializer)
    assert (worker.name, worker.queue_names(), worker.pid) == (W1, ["wt:contract"], 42)
    assert (worker.hostname, worker.version, worker.python_version) == ("host", "3.0.0", "3.11")
    assert recently(worker.birth_date)
    assert recently(worker.last_heartbeat)
    assert worker.get_state() == "idle"
    assert rq.Worker.all(queue=the_queue(calls)) == [worker]
    assert rq.Worker.count(queue=the_queue(calls)) == 1


def the_worker(calls):
    return rq.Worker.find_by_key(rq_state.worker_key(W1), connection=calls.redis, serializer=JSONSerializer)


def test_what_a_worker_does(calls):
    """RQ reads from a worker's hash whether it is busy, and how its calls ended."""
    for state, theirs in (("busy", WorkerStatus.BUSY), ("idle", WorkerStatus.IDLE)):
        calls.redis.hset(rq_state.worker_key(W1), mapping=rq_state.worker_progress(state, 2, 1))
        worker = the_worker(calls)
        assert worker.get_state() == state == theirs
        assert (worker.successful_job_count, worker.failed_job_count) == (2, 1)


def test_a_heartbeat(calls):
    """A lease that is renewed for a minute is a heartbeat for RQ, which keeps the worker listed."""
    before = the_worker(calls).last_heartbeat
    calls.redis.expire(rq_state.worker_key(W1), 1)
    for _ in range(SHOWN_RENEWALS):
        calls.workers.renew([W1])
    assert the_worker(calls).last_heartbeat > before
    assert calls.redis.ttl(rq_state.worker_key(W1)) > 1


def test_a_dead_worker(calls):
    """A worker that was given up is not listed any more, nor by what it says after that."""
    call = running(calls)
    calls.workers.recover(W1, None, "died")
    with pytest.raises(Fenced):
        calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600)
    assert rq.Worker.all(connection=calls.redis) == []
    assert rq.Worker.count(queue=the_queue(calls)) == 0


def test_a_birth(calls):
    """What a worker process says of itself at its birth is what RQ's own workers say."""
    fields = rq_state.worker_fields(NAME, 1, socket.gethostname(), (rq.__version__, sys.version))
    theirs = rq.SimpleWorker([the_queue(calls)], connection=calls.redis)
    theirs.register_birth()
    hash_of = calls.redis.hgetall(theirs.key)
    theirs.register_death()
    assert set(fields) - {"state"} <= {field.decode() for field in hash_of}


def test_a_stock_worker_counts_while_it_lives(calls):
    """A call is accepted while RQ says that a worker of its own lives, and refused when that is gone."""
    calls.workers.recover(W1, None, "gone")
    with pytest.raises(NoWorker):
        queued(calls)
    stock = rq.SimpleWorker([the_queue(calls)], connection=calls.redis)
    stock.register_birth()
    queued(calls)
    stock.register_death()
    with pytest.raises(NoWorker):
        queued(calls)


# -- times


def test_a_timestamp():
    """A time is written as RQ writes it, and RQ reads it back."""
    moment = datetime(2026, 11, 9, 8, 7, 6, 5, tzinfo=timezone.utc)
    assert rq_state.timestamp(moment) == "2026-11-09T08:07:06.000005Z" == utcformat(moment)
    assert utcparse(rq_state.timestamp(moment)) == moment
    assert recently(utcparse(rq_state.timestamp()))
