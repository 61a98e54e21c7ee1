"""Workers in Redis: their leases, and what becomes of the calls of a dead one."""

import pytest
import redis
from call_steps import (
    W1,
    W2,
    a_call,
    a_request,
    be_born,
    everything,
    forget,
    hold,
    queue,
    queued,
    response_stream,
    running,
    traces,
    woken,
)
from harness import until

from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.record import Attempt, Outcome
from wsgi_timeout.store.streams import Limits, StreamReader, StreamWriter

NAME = "calls"

# -- recover


def test_a_call_that_never_began_goes_back_to_the_front(calls):
    """What a dead worker had moved but not begun runs before all that came after it, as its first attempt."""
    first, second = queued(calls), queued(calls)
    hold(calls)
    assert calls.workers.recover(W1, None, "died") == [(first.id, "requeued")]
    assert queue(calls) == [first.id, second.id]
    hold(calls, W2)
    assert calls.attempts.take(first.id, W2).attempt.number == 1


@pytest.mark.parametrize("state", ["held", "running"])
def test_a_worker_that_was_given_up_begins_nothing(calls, state):
    """A worker that slept through its own recovery cannot begin what it held: nobody would recover that."""
    call = queued(calls)
    hold(calls)
    if state == "running":
        calls.attempts.take(call.id, W1)
    assert calls.workers.recover(W1, None, "died") == [(call.id, "requeued")]
    assert calls.attempts.take(call.id, W1) is None
    assert queue(calls) == [call.id]


@pytest.mark.parametrize("fate", ["queued", "running", "ended", "deleted"])
def test_a_worker_that_was_given_up_changes_nothing(calls, fate):
    """Whatever became of a call, a worker that was given up neither begins it nor puts it back."""
    be_born(calls, W2)
    call = queued(calls)
    hold(calls)
    calls.workers.recover(W1, None, "died")
    if fate in {"running", "ended"}:
        hold(calls, W2)
        calls.attempts.take(call.id, W2)
    if fate == "ended":
        calls.attempts.finish(Attempt(call.id, 1, W2), Outcome.DONE, 600)
    if fate == "deleted":
        forget(calls, call.id)
    before = everything(calls)
    assert calls.attempts.take(call.id, W1) is None
    assert not calls.attempts.give_back(call.id, W1)
    assert everything(calls) == before


def commands_of(calls, count):
    """Return so many connections of which nobody waits for a reply."""
    connections = [calls.redis.connection_pool.make_connection() for _ in range(count)]
    for connection in connections:
        connection.connect()
    return connections


@pytest.mark.parametrize("when", ["before", "after"])
def test_redis_moves_nothing_to_a_worker_that_is_gone(calls, when):
    """A BLMOVE that a worker left behind, blocked or on its way, takes no call from those that live."""
    be_born(calls, W2)
    gone, living = commands_of(calls, 2)

    def blocking(connection, worker):
        connection.send_command("CLIENT", "ID")
        mine = str(connection.read_response())
        source = rq_state.queue_key(NAME)
        connection.send_command("BLMOVE", source, keys.held(worker), "LEFT", "RIGHT", 50)
        # Others of this server block as well.
        clients = calls.redis.client_list
        until(lambda: [c for c in clients() if c["id"] == mine and "b" in c["flags"]], what="the BLMOVE")

    if when == "before":
        blocking(gone, W1)
    calls.workers.recover(W1, None, "died")
    if when == "after":
        blocking(gone, W1)
    blocking(living, W2)
    call = queued(calls)
    assert living.read_response() == call.id.encode()
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        gone.read_response()
    assert calls.attempts.take(call.id, W2) is not None
    for connection in (gone, living):
        connection.disconnect()


def test_a_worker_that_is_gone_takes_nothing_by_script(calls):
    """A script that comes late takes no call in the name of a worker that is gone."""
    be_born(calls, W2)
    calls.workers.recover(W1, None, "died")
    call = queued(calls)
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        calls.attempts.take("", W1)
    assert queue(calls) == [call.id]
    assert calls.look(call.id).state == "queued"


def test_a_call_that_was_put_back_is_not_begun(calls):
    """A call that a worker did not begin in time goes to others; one that it runs stays."""
    call = queued(calls)
    hold(calls)
    assert calls.attempts.give_back(call.id, W1)
    assert not calls.attempts.give_back(call.id, W1)
    assert calls.attempts.take(call.id, W1) is None
    hold(calls, W2)
    assert calls.attempts.give_back(call.id, W2)
    # Unless the queue gives it the call anew.
    hold(calls, W2)
    assert calls.attempts.take(call.id, W2).attempt.number == 1
    assert not calls.attempts.give_back(call.id, W2)
    assert calls.workers.recover(W2, None, "died") == [(call.id, "requeued")]


def test_a_worker_that_makes_itself_known_again_takes_calls(calls):
    """A worker that repeats its first command, and counted as gone since the last time, takes calls."""
    call = queued(calls)
    be_born(calls, W1)
    assert calls.workers.recover(W1, b"1", "silent") == []
    be_born(calls, W1)
    hold(calls)
    assert calls.attempts.take(call.id, W1).attempt.number == 1


def test_several_held_calls_keep_their_order(calls):
    """The calls that a dead worker held go back in the order in which they came."""
    several = [queued(calls).id for _ in range(3)]
    waiting = queued(calls)
    for _ in several:
        hold(calls)
    calls.workers.recover(W1, None, "died")
    assert queue(calls) == [*several, waiting.id]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_an_idempotent_call_is_run_again(calls, method):
    """A call with an idempotent method is queued again, until `max_attempts` runs."""
    call = running(calls, method=method, max_attempts=2)
    assert calls.workers.recover(W1, None, "died") == [(call.id, "requeued")]
    assert (calls.look(call.id).state, queue(calls)) == ("queued", [call.id])
    be_born(calls, W2)
    hold(calls, W2)
    assert calls.attempts.take(call.id, W2).attempt.number == 2
    assert calls.workers.recover(W2, None, "died again") == [(call.id, "lost")]
    times = calls.look(call.id).times
    assert times.created <= times.queued <= times.started <= times.ended
    assert times.queue_seconds == (times.started - times.queued) / 1000
    now = calls.look(call.id)
    assert (now.state, now.outcome, now.detail) == ("ended", Outcome.LOST, "died again")


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_another_call_is_lost(calls, method):
    """A call that must not run twice ends as lost, and wakes its waiters."""
    call = running(calls, inbox="waiting", method=method)
    assert calls.workers.recover(W1, None, "died") == [(call.id, "lost")]
    assert calls.look(call.id).outcome is Outcome.LOST
    assert (queue(calls), woken(calls, "waiting")) == ([], {call.id})


def test_one_attempt_forbids_a_second(calls):
    """With `max_attempts` 1 nothing is run again."""
    call = running(calls, max_attempts=1)
    assert calls.workers.recover(W1, None, "died") == [(call.id, "lost")]


def test_a_response_that_was_handed_out_is_lost(calls):
    """Once a byte of the response was read no other run may replace it: the stream breaks off."""
    call = running(calls)
    response_stream(calls, call.id, 1).offer(b"begin")
    reader = StreamReader(calls.scripts, call.id, "reader", 1)
    assert reader.poll() == [b"begin"]
    assert calls.workers.recover(W1, None, "died") == [(call.id, "lost")]
    assert (reader.poll(), reader.end) == ([], "broken")


def test_a_response_that_nobody_read_is_thrown_away(calls):
    """A response that no web process has seen is forgotten, and the call runs again."""
    call = running(calls)
    response_stream(calls, call.id, 1).offer(b"begin")
    assert calls.workers.recover(W1, None, "died") == [(call.id, "requeued")]
    assert calls.look(call.id).head is None
    assert not calls.redis.exists(keys.response_body(call.id, 1))


def test_a_trimmed_request_body_is_lost(calls):
    """A call whose request body is not whole any more is not run again."""
    call = a_call(method="PUT", request=a_request(body=None))
    body = StreamWriter(calls.scripts, call.id, "uploader", Limits(10, 10), ttl=60)
    body.offer(b"12345678")
    calls.enqueue(call)
    hold(calls)
    calls.attempts.take(call.id, W1)
    reader = StreamReader(calls.scripts, call.id, "reader")
    reader.poll()
    reader.poll()
    assert body.offer(b"abcdefgh")
    assert calls.workers.recover(W1, None, "died") == [(call.id, "lost")]


def test_a_second_run_reads_its_body_from_the_beginning(calls):
    """After a recovery nothing of the request body counts as read, so that nothing of it is trimmed."""
    call = a_call(method="PUT", request=a_request(body=None))
    body = StreamWriter(calls.scripts, call.id, "uploader", Limits(10, 10), ttl=60)
    body.offer(b"12345678")
    calls.enqueue(call)
    hold(calls)
    calls.attempts.take(call.id, W1)
    dead = StreamReader(calls.scripts, call.id, "dead")
    dead.poll()
    dead.poll()
    assert calls.workers.recover(W1, None, "died") == [(call.id, "requeued")]
    assert not body.offer(b"abcdefgh")
    reader = StreamReader(calls.scripts, call.id, "reader")
    assert reader.poll() == [b"12345678"]
    assert reader.poll() == []
    assert body.offer(b"abcdefgh")
    assert reader.poll() == [b"abcdefgh"]


def test_a_settled_call_is_dropped(calls):
    """A call that ended before its worker died stays as it is."""
    call = running(calls)
    calls.end(call.id, Outcome.CANCELLED, "before", 600)
    assert calls.workers.recover(W1, None, "died") == [(call.id, "dropped")]
    assert calls.look(call.id).detail == "before"


def test_a_call_without_a_record_is_dropped(calls):
    """A held id whose record was deleted while it ran is forgotten, whichever run it was; others stay."""
    be_born(calls, W2)
    other, call = running(calls, W2), running(calls)
    calls.attempts.retry(Attempt(call.id, 1, W1), 0.0, "")
    calls.workers.release()
    hold(calls)
    assert calls.attempts.take(call.id, W1).attempt.number == 2
    forget(calls, call.id)
    assert calls.workers.recover(W1, None, "died") == [(call.id, "dropped")]
    assert traces(calls, call) == []
    assert calls.redis.zrange(rq_state.started_key(NAME), 0, -1) == [f"{other.id}:1".encode()]


def test_a_worker_with_a_newer_lease_is_not_recovered(calls):
    """An observer that saw an older lease than the present one changes nothing."""
    call = running(calls)
    calls.workers.renew([W1])
    before = everything(calls)
    assert calls.workers.recover(W1, b"1", "silent") is None
    assert everything(calls) == before
    assert calls.workers.recover(W1, b"2", "silent") == [(call.id, "requeued")]


def test_a_recovery_happens_once(calls):
    """Of two observers of a dead worker only the first settles its calls."""
    call = running(calls)
    assert calls.workers.recover(W1, b"1", "silent") == [(call.id, "requeued")]
    before = everything(calls)
    assert calls.workers.recover(W1, b"1", "silent") is None
    assert calls.workers.recover(W1, None, "silent") == []
    assert everything(calls) == before


def test_a_recovered_worker_is_forgotten(calls):
    """Of a dead worker no lease, no description and no entry of RQ's stays: only what keeps calls from it."""
    calls.workers.recover(W1, None, "died")
    assert [key for key in everything(calls) if W1.encode() in key] == [keys.held(W1).encode()]
    assert 0 < calls.redis.ttl(keys.held(W1)) <= keys.FENCE_TTL
    assert calls.redis.hgetall(keys.leases(NAME)) == {}
    assert calls.redis.smembers(rq_state.WORKERS) == set()
    assert calls.redis.smembers(rq_state.workers_of_queue_key(NAME)) == set()


# -- leases


def test_renewing_raises_each_lease(calls):
    """A renewal raises the leases of live workers by one, and reports none lost."""
    be_born(calls, W2)
    assert calls.workers.renew([W1, W2]) == []
    assert calls.redis.hgetall(keys.leases(NAME)) == {W1.encode(): b"2", W2.encode(): b"2"}


def test_renewing_reports_lost_workers(calls):
    """A worker whose lease was lost is named, and is not brought back by its renewal."""
    be_born(calls, W2)
    calls.workers.recover(W1, None, "silent")
    assert calls.workers.renew([W1, W2]) == [W1]
    assert list(calls.redis.hgetall(keys.leases(NAME))) == [W2.encode()]


def test_registering_twice_keeps_the_lease(calls):
    """A repeated registration, after a lost reply, does not lower the lease."""
    calls.workers.renew([W1])
    be_born(calls, W1)
    assert calls.redis.hget(keys.leases(NAME), W1) == b"2"
