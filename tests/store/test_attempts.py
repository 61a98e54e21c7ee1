"""What a worker does with a call: take, finish, retry. Each may run twice; an old attempt's is refused."""

import contextlib
import time
from dataclasses import replace

import pytest
from call_steps import (
    HEAD,
    W1,
    W2,
    a_call,
    a_request,
    ended,
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

from wsgi_timeout.errors import Fenced, RedisUnavailable
from wsgi_timeout.functions.ended import EndedCall
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.record import Attempt, Outcome, Snapshot, Taken, Times
from wsgi_timeout.store.streams import StreamReader

NAME = "calls"

# -- take


def test_taking_starts_an_attempt(calls):
    """The first take runs attempt 1, and gives the request as it was sent."""
    request = a_request(body=b"\x00\xff")
    call = queued(calls, request=request)
    hold(calls)
    assert calls.attempts.take(call.id, W1) == Taken(Attempt(call.id, 1, W1), request.pack(), more=False)
    assert (calls.look(call.id).state, calls.look(call.id).attempt) == ("running", 1)


def test_a_repeated_take_returns_the_same_attempt(calls):
    """A worker whose reply was lost takes the same attempt again."""
    call = queued(calls)
    hold(calls)
    first = calls.attempts.take(call.id, W1)
    before = everything(calls)
    assert calls.attempts.take(call.id, W1) == first
    assert everything(calls) == before


def test_nobody_takes_what_another_runs(calls):
    """A second worker gets nothing, and holds nothing after that."""
    call = running(calls)
    calls.redis.rpush(keys.held(W2), call.id)
    assert calls.attempts.take(call.id, W2) is None
    assert not calls.redis.exists(keys.held(W2))
    assert calls.look(call.id).attempt == 1


def test_a_call_that_ended_in_the_queue_is_dropped(calls):
    """A cancelled call's id is thrown away by the worker that finds it."""
    call = queued(calls)
    calls.end(call.id, Outcome.CANCELLED, "", 600)
    hold(calls)
    assert calls.attempts.take(call.id, W1) is None
    assert not calls.redis.exists(keys.held(W1))


def test_an_unknown_id_is_dropped(calls):
    """An id in the queue without a record runs nothing."""
    calls.redis.rpush(keys.held(W1), "fc-unknown")
    assert calls.attempts.take("fc-unknown", W1) is None
    assert not calls.redis.exists(keys.held(W1))


def test_a_call_that_comes_too_late_is_not_accepted(calls, monkeypatch):
    """A command that lay in a silent server until its sender had given up accepts nothing."""
    monkeypatch.setattr("wsgi_timeout.store.enqueue._ACCEPTED_MS", -1)
    call = a_call()
    with pytest.raises(RedisUnavailable, match="too long"):
        calls.enqueue(call)
    assert not calls.redis.exists(keys.call(call.id), rq_state.queue_key(NAME))


def test_a_clock_that_was_set_anew(calls):
    """When the server's clock has jumped ahead, calls are accepted all the same; nothing else changes."""
    calls._last_moment()
    measured = calls._ahead_ms
    calls._ahead_ms -= 3_600_000
    call = queued(calls)
    assert abs(calls._ahead_ms - measured) < 1000
    assert calls.look(call.id).state == "queued"
    calls.enqueue(call)
    assert queue(calls) == [call.id]


def test_taking_the_next_call(calls):
    """A worker takes the queue's next call in one step, and learns whether it has waited behind others."""
    first, second = queued(calls), queued(calls)
    taken = calls.attempts.take("", W1)
    assert (taken.attempt.call_id, taken.attempt.number, taken.more) == (first.id, 1, False)
    calls.attempts.finish(Attempt(first.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b""))
    taken = calls.attempts.take("", W1)
    assert (taken.attempt.call_id, taken.attempt.number, taken.more) == (second.id, 1, True)
    calls.attempts.finish(Attempt(second.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b""))
    assert calls.attempts.take("", W1) is None


def test_the_next_call_is_not_lost_with_a_reply(calls):
    """A worker that asks for the next call again, since its reply was lost, gets the same one."""
    first, _ = queued(calls), queued(calls)
    taken = calls.attempts.take("", W1)
    assert calls.attempts.take("", W1) == taken
    assert (taken.attempt.call_id, taken.attempt.number) == (first.id, 1)


# -- finish


def test_finishing_records_the_response(calls):
    """A small response lies in the record, whole, and wakes its waiters."""
    call = running(calls, inbox="waiting")
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b"body"))
    now = calls.look(call.id)
    assert (now.state, now.outcome, now.head, now.body) == ("ended", Outcome.DONE, HEAD, b"body")
    assert woken(calls, "waiting") == {call.id}
    assert not calls.redis.exists(keys.held(W1))
    assert 0 < calls.redis.ttl(keys.call(call.id)) <= 600


@pytest.mark.parametrize("size", [0, 1, 3000])
def test_a_small_response_comes_with_the_wake(calls, size):
    """Who is woken by the end of a small call has its response already, the same as in the record."""
    call = running(calls, inbox="waiting")
    body = (b"a b\n\x00\xff" * 600)[:size]
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, body))
    (wake,) = calls.redis.lrange(keys.inbox("waiting"), 0, -1)
    call_id, _, carried = wake.partition(b" ")
    assert call_id == call.id.encode()
    told = Snapshot.carried(carried)
    assert told == calls.look(call.id)
    assert all((told.times.created, told.times.started, told.times.ended))
    # A process of an earlier version sends no times, one of a later version may send more.
    rest = carried[carried.index(b" ") :]
    assert Snapshot.carried(b"1" + rest) == replace(told, times=Times())
    assert Snapshot.carried(b"1:2:3:4:5:6" + rest) is None


@pytest.mark.parametrize("size", [0, 1, 3000])
def test_a_small_result_comes_with_the_wake(calls, size):
    """Who waits for a function has its small result with the wake, the same as in the record."""
    call = running(calls, inbox="waiting")
    value = (b"a b\n\x00\xff" * 600)[:size]
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, value=value)
    (wake,) = calls.redis.lrange(keys.inbox("waiting"), 0, -1)
    call_id, _, carried = wake.partition(b" ")
    assert call_id == call.id.encode()
    ended = EndedCall.carried(call.id, carried)
    assert (ended.outcome, ended.body, ended.attempt) == (Outcome.DONE, value, 1)
    assert calls.look(call.id).body == value


def test_large_results_and_exceptions_are_asked_for(calls):
    """A wake carries no large result, and no exception, whose traceback lies in the record."""
    for outcome, value in ((Outcome.DONE, b"x" * 5000), (Outcome.RAISED, b"x")):
        call = running(calls, inbox="waiting")
        calls.attempts.finish(Attempt(call.id, 1, W1), outcome, 600, value=value)
        assert calls.redis.rpop(keys.inbox("waiting")) == call.id.encode()


@pytest.mark.parametrize(
    ("outcome", "response"),
    [(Outcome.DONE, (HEAD, b"x" * 4096)), (Outcome.RAISED, None), (Outcome.BROKEN, (HEAD, b"x"))],
    ids=["large", "raised", "broken"],
)
def test_other_wakes_carry_nothing(calls, outcome, response):
    """A large response, and what is none, has to be asked for."""
    call = running(calls, inbox="waiting")
    calls.attempts.finish(Attempt(call.id, 1, W1), outcome, 600, response=response)
    assert calls.redis.lrange(keys.inbox("waiting"), 0, -1) == [call.id.encode()]


def test_a_repeated_finish_changes_nothing(calls):
    """A worker whose reply was lost ends its attempt again, without effect or error."""
    call = ended(calls)
    before = everything(calls)
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.RAISED, 600, detail="another")
    assert everything(calls) == before


def test_a_given_up_attempt_is_fenced(calls):
    """What a worker writes after its call was given to another is refused, and leaves nothing."""
    call = running(calls)
    assert calls.workers.recover(W1, None, "died") == [(call.id, "requeued")]
    before = everything(calls)
    with pytest.raises(Fenced, match="attempt 1"):
        calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b"old"))
    assert everything(calls) == before
    hold(calls, W2)
    assert calls.attempts.take(call.id, W2).attempt.number == 2
    with pytest.raises(Fenced):
        calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b"old"))
    assert calls.look(call.id).body is None


def test_an_outcome_stands_against_a_late_finish(calls):
    """A handler that ends after its call was cancelled changes nothing of the outcome."""
    call = running(calls)
    calls.end(call.id, Outcome.CANCELLED, "by its client", 600)
    with contextlib.suppress(Fenced):
        calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b"late"))
    now = calls.look(call.id)
    assert (now.outcome, now.detail, now.body) == (Outcome.CANCELLED, "by its client", None)
    assert not calls.redis.exists(keys.held(W1))


def test_a_finish_of_a_vanished_record_is_fenced(calls):
    """A call whose record was deleted while it ran is not brought back by its end: nothing is left."""
    call = running(calls)
    forget(calls, call.id)
    with pytest.raises(Fenced):
        calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b"late"))
    assert calls.look(call.id).state is None
    assert traces(calls, call) == []


@pytest.mark.parametrize("how", ["finish", "recover"])
def test_a_stock_workers_job_is_left_to_it(calls, how):
    """RQ deletes the job that its own worker runs, and would fail if another had deleted it."""
    call = queued(calls)
    hold(calls)
    calls.attempts.take(call.id, W1, stock=True)
    calls.redis.hset(rq_state.job_key(call.id), "worker_name", "of-rq")
    forget(calls, call.id)
    if how == "finish":
        with pytest.raises(Fenced):
            calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600)
    else:
        calls.workers.recover(W1, None, "its end")
    assert traces(calls, call) == [rq_state.job_key(call.id).encode()]


@pytest.mark.parametrize(
    ("outcome", "end"), [(Outcome.DONE, "complete"), (Outcome.BROKEN, "broken"), (Outcome.TIMEOUT, "broken")]
)
def test_finishing_ends_the_stream(calls, outcome, end):
    """A streamed body is complete if the call is done, and broken with every other outcome."""
    call = running(calls)
    response_stream(calls, call.id, 1).offer(b"body")
    reader = StreamReader(calls.scripts, call.id, "reader", 1)
    assert reader.poll() == [b"body"]
    calls.attempts.finish(Attempt(call.id, 1, W1), outcome, 600, streamed=1)
    assert reader.poll() == []
    assert reader.end == end
    assert call.id in woken(calls, "reader")


# -- a function's large result


@pytest.mark.parametrize("how", ["end", "recover", "finish"])
def test_what_came_of_a_result_goes_with_its_call(calls, how):
    """A call that ends without its result keeps no chunk of it, and its attempt can write no more."""
    call = running(calls, method="CALL")
    calls.attempts.store(Attempt(call.id, 1, W1), 0, b"first")
    assert calls.redis.ttl(keys.value(call.id, 1)) == calls.redis.ttl(keys.call(call.id))
    if how == "end":
        calls.end(call.id, Outcome.CANCELLED, "", 600)
    elif how == "recover":
        calls.workers.recover(W1, None, "killed")
    else:
        calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.TIMEOUT, 600)
    with pytest.raises(Fenced, match="attempt 1"):
        calls.attempts.store(Attempt(call.id, 1, W1), 1, b"second")
    assert not calls.redis.exists(keys.value(call.id, 1))


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.RAISED])
def test_a_large_result_is_kept_as_long_as_its_call(calls, outcome):
    """The chunks of a result that came whole live as long as the record that tells of it."""
    call = running(calls, method="CALL")
    for number in (0, 1, 1):
        calls.attempts.store(Attempt(call.id, 1, W1), number, b"chunk%d" % number)
    for _ in range(2):
        calls.attempts.finish(Attempt(call.id, 1, W1), outcome, 30, chunks=2)
    assert calls.redis.hgetall(keys.value(call.id, 1)) == {b"0": b"chunk0", b"1": b"chunk1"}
    assert calls.redis.ttl(keys.value(call.id, 1)) == calls.redis.ttl(keys.call(call.id)) == 30


# -- retry, release


def test_a_retry_begins_after_its_pause(calls):
    """A function's attempt that is to be retried waits outside the queue, then runs as the next attempt."""
    call = running(calls)
    calls.attempts.retry(Attempt(call.id, 1, W1), 1.0, "raised")
    assert (calls.look(call.id).state, queue(calls)) == ("delayed", [])
    assert not calls.redis.exists(keys.held(W1))
    calls.workers.release()
    assert queue(calls) == []
    until(lambda: calls.workers.release() or queue(calls), what="the end of its pause")
    assert (calls.look(call.id).state, queue(calls)) == ("queued", [call.id])
    hold(calls)
    assert calls.attempts.take(call.id, W1).attempt.number == 2


def test_a_repeated_retry_changes_nothing(calls):
    """A worker whose reply was lost asks for its retry again, without effect or error."""
    call = running(calls)
    calls.attempts.retry(Attempt(call.id, 1, W1), 60, "raised")
    before = everything(calls)
    calls.attempts.retry(Attempt(call.id, 1, W1), 90, "raised")
    assert everything(calls) == before


def test_a_given_up_attempt_is_not_retried(calls):
    """An attempt that is no longer the current one cannot have the call run again."""
    call = running(calls)
    calls.workers.recover(W1, None, "died")
    with pytest.raises(Fenced):
        calls.attempts.retry(Attempt(call.id, 1, W1), 0, "raised")
    assert queue(calls) == [call.id]


@pytest.mark.parametrize("again", ["retry", "finish"])
def test_a_late_repeat_leaves_the_next_attempt_its_hold(calls, again):
    """What a worker repeats about one attempt takes nothing from the next one, which it runs by then."""
    call = running(calls)
    calls.attempts.retry(Attempt(call.id, 1, W1), 0, "raised")
    until(lambda: calls.workers.release() or queue(calls), what="its pause")
    hold(calls)
    repeats = {
        "retry": lambda: calls.attempts.retry(Attempt(call.id, 1, W1), 0, "raised"),
        "finish": lambda: calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600),
    }
    for _ in range(2):
        with pytest.raises(Fenced):
            repeats[again]()
        assert calls.redis.lrange(keys.held(W1), 0, -1) == [call.id.encode()]
        calls.attempts.take(call.id, W1)
    assert calls.workers.recover(W1, None, "died") == [(call.id, "lost")]


@pytest.mark.parametrize("how", ["recover", "retry"])
def test_a_call_that_is_queued_again_has_its_whole_time(calls, how):
    """`queue_ttl` counts anew from a requeue, and ends a call then too."""
    call = running(calls, queue_ttl=1.0)
    since = time.monotonic()
    until(lambda: time.monotonic() - since > 1.1)
    again = time.monotonic()
    if how == "recover":
        calls.workers.recover(W1, None, "died")
    else:
        calls.attempts.retry(Attempt(call.id, 1, W1), 0, "raised")
        until(lambda: calls.workers.release() or queue(calls), what="its pause")
    assert calls.join(call.id, "inbox").state == "queued"
    until(lambda: calls.join(call.id, "inbox").ended, what="its end")
    assert time.monotonic() - again > 0.8
    assert calls.look(call.id).outcome is Outcome.TIMEOUT


def test_a_retry_that_nobody_queues_ends(calls):
    """A call whose pause is over, and which no pool is left to queue, has an outcome after `queue_ttl`."""
    call = running(calls, queue_ttl=0.4)
    calls.attempts.retry(Attempt(call.id, 1, W1), 0.4, "raised")
    paused = time.monotonic()
    assert calls.join(call.id, "inbox").state == "delayed"
    until(lambda: calls.join(call.id, "inbox").ended, what="its end")
    assert time.monotonic() - paused > 0.7
    assert calls.look(call.id).outcome is Outcome.TIMEOUT
    assert call.id in woken(calls, "inbox")
    calls.workers.release()
    assert queue(calls) == []


def test_our_own_clock_may_jump(calls, monkeypatch):
    """When this process's clock is set forward, the moment until which a call is accepted is not."""
    before = calls._last_moment()
    monkeypatch.setattr("time.time_ns", lambda: 2**62)
    assert 0 <= calls._last_moment() - before < 5000


def test_a_worker_outlives_its_description(calls):
    """Renewals make no key without a TTL for a worker whose description is gone, and keep one for weeks."""
    calls.workers.register(W1, "inbox", {"target": "any"}, {"birth": "any"})
    described = [keys.worker(W1), rq_state.worker_key(W1)]
    assert [calls.redis.ttl(key) > 7 * 86_400 for key in described] == [True, True]
    calls.redis.unlink(*described)
    assert calls.workers.renew([W1]) == []
    assert not calls.redis.exists(*described)


def test_a_delayed_call_can_be_cancelled(calls):
    """A call that waits for its retry can be cancelled, and is not queued when its pause is over."""
    call = running(calls)
    calls.attempts.retry(Attempt(call.id, 1, W1), 0, "raised")
    assert calls.end(call.id, Outcome.CANCELLED, "", 600) is True
    calls.workers.release()
    assert (queue(calls), calls.look(call.id).outcome) == ([], Outcome.CANCELLED)
    assert calls.redis.zcard(keys.delayed(NAME)) == 0


def test_a_call_that_was_popped_and_not_started_goes_back(calls):
    """What a worker gives back, or a stock worker of RQ lost, stands at the front of the queue again."""
    call, later = queued(calls), queued(calls)
    hold(calls)
    calls.attempts.give_back(call.id, W1)
    assert queue(calls) == [call.id, later.id]
    calls.redis.lmove(rq_state.queue_key(NAME), rq_state.intermediate_key(NAME), "LEFT", "LEFT")
    for _ in range(2):
        calls.workers.put_back(call.id)
        assert queue(calls) == [call.id, later.id]
