"""The call record: what each script changes, that it may run twice, and that nothing is left behind."""

import contextlib
import re
import time

import pytest
import redis
from harness import until
from remains import eternal

from wsgi_timeout.errors import Fenced, NoWorker, QueueFull, RedisUnavailable
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.calls import (
    Calls,
    NewCall,
    Outcome,
    Snapshot,
    Taken,
    Tombstone,
    new_id,
    new_token,
    now_ms,
)
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.messages import CallRequest, ResponseHead
from wsgi_timeout.store.streams import Limits, StreamReader, StreamWriter

NAME = "calls"
W1, W2 = "calls-w1", "calls-w2"
HEAD = ResponseHead("200 OK", [("Content-Type", "text/plain")])
ROOMY = Limits(1000, 1000)


@pytest.fixture
def calls(redis_server):
    """The calls of one name, with one live worker, in a database of their own."""
    with fresh_calls(redis_server, NAME) as calls:
        yield calls


@contextlib.contextmanager
def fresh_calls(redis_server, name, *, workers=(W1,)):
    client = connect(redis_server.url + "?db=1", connections=2)
    client.flushdb()
    calls = Calls(client, name)
    for worker in workers:
        be_born(calls, worker)
    yield calls
    client.flushdb()
    client.close()


def be_born(calls, worker):
    birth = rq_state.worker_fields(calls.name, 42, "host", ("3.0.0", "3.11"))
    calls.register(worker, f"pool-of-{worker}", {"target": "legacy:app"}, birth)


def a_request(**changes):
    values = {
        "environ": {"REQUEST_METHOD": "GET", "PATH_INFO": "/slow"},
        "body": b"",
        "entry": "",
        "timeout": 30.0,
        "inline_body": 100,
        "buffer": 1000,
        "max_result": 1000,
        "unread_timeout": 10.0,
        "result_ttl": 600.0,
    }
    return CallRequest(**{**values, **changes})


def a_call(**changes):
    """Return a call; one whose request has no body has it in a stream."""
    values = {
        "id": new_id(),
        "token": new_token(),
        "path": "/slow",
        "method": "GET",
        "request": a_request(),
        "max_attempts": 2,
        "max_queued": 10,
        "queue_ttl": 60.0,
    }
    values |= changes
    if values["request"].body is None:
        values.setdefault("beside", keys.request_body(values["id"]))
    return NewCall(**values)


def queued(calls, inbox="", **changes):
    call = a_call(**changes)
    calls.enqueue(call, inbox)
    return call


def hold(calls, worker=W1):
    """Move the next call to a worker, as its BLMOVE does."""
    moved = calls.redis.lmove(rq_state.queue_key(calls.name), keys.held(worker), "LEFT", "RIGHT")
    return moved.decode()


def running(calls, worker=W1, inbox="", **changes):
    """Return a call whose first attempt runs."""
    call = queued(calls, inbox, **changes)
    assert hold(calls, worker) == call.id
    assert calls.take(call.id, worker) is not None
    return call


def ended(calls, worker=W1, **changes):
    """Return a call that was answered."""
    call = running(calls, worker, **changes)
    calls.finish(call.id, worker, 1, Outcome.DONE, 600, response=(HEAD, b"body"))
    return call


def response_stream(calls, call_id, attempt, limits=ROOMY):
    return StreamWriter(calls.scripts, call_id, "writer", limits, ttl=60, attempt=attempt, head=HEAD.pack())


def queue(calls):
    return [item.decode() for item in calls.redis.lrange(rq_state.queue_key(calls.name), 0, -1)]


def woken(calls, inbox):
    return {item.partition(b" ")[0].decode() for item in calls.redis.lrange(keys.inbox(inbox), 0, -1)}


def everything(calls):
    """Return all that is in the database but wakes, which may come twice."""
    read = {
        b"hash": calls.redis.hgetall,
        b"list": lambda key: calls.redis.lrange(key, 0, -1),
        b"set": calls.redis.smembers,
        b"zset": lambda key: calls.redis.zrange(key, 0, -1, withscores=True),
        b"string": calls.redis.get,
    }
    found = (key for key in calls.redis.scan_iter() if not key.startswith(b"wt:inbox:"))
    return {key: read[calls.redis.type(key)](key) for key in found}


def traces(calls, call):
    """Return the keys that name a call, or list it."""
    name = call.id.encode()
    return [key for key, value in everything(calls).items() if name in key or name in repr(value).encode()]


def forget(calls, call_id):
    """Delete a record, as its TTL would."""
    calls.redis.delete(keys.call(call_id))


# -- enqueue


def test_a_call_is_accepted(calls):
    """An accepted call is queued with its record, and nobody has run it."""
    call = queued(calls)
    now = calls.look(call.id)
    assert (now.state, now.outcome, now.attempt, now.ended) == ("queued", None, 0, False)
    assert queue(calls) == [call.id]


def test_a_repeated_enqueue_changes_nothing(calls):
    """The same call sent twice, after a lost reply, is queued once."""
    call = queued(calls)
    before = everything(calls)
    calls.enqueue(call)
    assert everything(calls) == before


def test_an_enqueue_repeated_while_it_runs_changes_nothing(calls):
    """A repeat that comes after a worker took the call does not run it again."""
    call = running(calls)
    before = everything(calls)
    calls.enqueue(call)
    assert everything(calls) == before


def test_no_live_worker_refuses(redis_server):
    """Without a registered worker nothing is accepted, and the message names the remedy."""
    with fresh_calls(redis_server, NAME, workers=()) as calls:
        with pytest.raises(NoWorker, match="wsgi-timeout worker"):
            queued(calls)
        assert everything(calls) == {}


def test_a_full_queue_refuses(calls):
    """Over `max_queued` nothing is accepted."""
    queued(calls, max_queued=1)
    before = everything(calls)
    with pytest.raises(QueueFull, match="1 calls wait"):
        queued(calls, max_queued=1)
    assert everything(calls) == before


def test_an_accepted_calls_stream_lives_as_long_as_the_call(calls):
    """A body in a stream gets the TTL of its call with its acceptance, and no later chunk shortens it."""
    call = a_call(method="POST", request=a_request(body=None))
    body = StreamWriter(calls.scripts, call.id, "uploader", ROOMY, ttl=keys.UPLOAD_TTL)
    body.offer(b"begin")
    calls.enqueue(call)
    accepted = calls.redis.ttl(keys.request_body(call.id))
    assert accepted > keys.UPLOAD_TTL
    body.offer(b"rest")
    assert calls.redis.ttl(keys.request_body(call.id)) >= accepted - 1


# -- take


def test_taking_starts_an_attempt(calls):
    """The first take runs attempt 1, and gives the request as it was sent."""
    request = a_request(body=b"\x00\xff")
    call = queued(calls, request=request)
    hold(calls)
    assert calls.take(call.id, W1) == Taken(call.id, 1, request.pack(), more=False)
    assert (calls.look(call.id).state, calls.look(call.id).attempt) == ("running", 1)


def test_a_repeated_take_returns_the_same_attempt(calls):
    """A worker whose reply was lost takes the same attempt again."""
    call = queued(calls)
    hold(calls)
    first = calls.take(call.id, W1)
    before = everything(calls)
    assert calls.take(call.id, W1) == first
    assert everything(calls) == before


def test_nobody_takes_what_another_runs(calls):
    """A second worker gets nothing, and holds nothing after that."""
    call = running(calls)
    calls.redis.rpush(keys.held(W2), call.id)
    assert calls.take(call.id, W2) is None
    assert not calls.redis.exists(keys.held(W2))
    assert calls.look(call.id).attempt == 1


def test_a_call_that_ended_in_the_queue_is_dropped(calls):
    """A cancelled call's id is thrown away by the worker that finds it."""
    call = queued(calls)
    calls.end(call.id, Outcome.CANCELLED, "", 600)
    hold(calls)
    assert calls.take(call.id, W1) is None
    assert not calls.redis.exists(keys.held(W1))


def test_an_unknown_id_is_dropped(calls):
    """An id in the queue without a record runs nothing."""
    calls.redis.rpush(keys.held(W1), "fc-unknown")
    assert calls.take("fc-unknown", W1) is None
    assert not calls.redis.exists(keys.held(W1))


def test_a_call_that_comes_too_late_is_not_accepted(calls, monkeypatch):
    """A command that lay in a silent server until its sender had given up accepts nothing."""
    monkeypatch.setattr("wsgi_timeout.store.calls._ACCEPTED_MS", -1)
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
    """A worker takes the queue's next call in one step, and learns whether others wait."""
    first, second = queued(calls), queued(calls)
    taken = calls.take("", W1)
    assert (taken.call_id, taken.attempt, taken.more) == (first.id, 1, True)
    calls.finish(first.id, W1, 1, Outcome.DONE, 600, response=(HEAD, b""))
    taken = calls.take("", W1)
    assert (taken.call_id, taken.attempt, taken.more) == (second.id, 1, False)
    calls.finish(second.id, W1, 1, Outcome.DONE, 600, response=(HEAD, b""))
    assert calls.take("", W1) is None


def test_the_next_call_is_not_lost_with_a_reply(calls):
    """A worker that asks for the next call again, since its reply was lost, gets the same one."""
    first, _ = queued(calls), queued(calls)
    taken = calls.take("", W1)
    assert calls.take("", W1) == taken
    assert (taken.call_id, taken.attempt) == (first.id, 1)


# -- finish


def test_finishing_records_the_response(calls):
    """A small response lies in the record, whole, and wakes who waits."""
    call = running(calls, inbox="waiting")
    calls.finish(call.id, W1, 1, Outcome.DONE, 600, response=(HEAD, b"body"))
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
    calls.finish(call.id, W1, 1, Outcome.DONE, 600, response=(HEAD, body))
    (wake,) = calls.redis.lrange(keys.inbox("waiting"), 0, -1)
    call_id, _, carried = wake.partition(b" ")
    assert call_id == call.id.encode()
    assert Snapshot.carried(carried) == calls.look(call.id)


@pytest.mark.parametrize(
    ("outcome", "response"),
    [(Outcome.DONE, (HEAD, b"x" * 4096)), (Outcome.RAISED, None), (Outcome.BROKEN, (HEAD, b"x"))],
    ids=["large", "raised", "broken"],
)
def test_other_wakes_carry_nothing(calls, outcome, response):
    """A large response, and what is none, has to be asked for."""
    call = running(calls, inbox="waiting")
    calls.finish(call.id, W1, 1, outcome, 600, response=response)
    assert calls.redis.lrange(keys.inbox("waiting"), 0, -1) == [call.id.encode()]


def test_a_repeated_finish_changes_nothing(calls):
    """A worker whose reply was lost ends its attempt again, without effect or error."""
    call = ended(calls)
    before = everything(calls)
    calls.finish(call.id, W1, 1, Outcome.RAISED, 600, detail="another")
    assert everything(calls) == before


def test_a_given_up_attempt_is_fenced(calls):
    """What a worker writes after its call was given to another is refused, and leaves nothing."""
    call = running(calls)
    assert calls.recover(W1, None, "died") == [(call.id, "requeued")]
    before = everything(calls)
    with pytest.raises(Fenced, match="attempt 1"):
        calls.finish(call.id, W1, 1, Outcome.DONE, 600, response=(HEAD, b"old"))
    assert everything(calls) == before
    hold(calls, W2)
    assert calls.take(call.id, W2).attempt == 2
    with pytest.raises(Fenced):
        calls.finish(call.id, W1, 1, Outcome.DONE, 600, response=(HEAD, b"old"))
    assert calls.look(call.id).body is None


def test_an_outcome_stands_against_a_late_finish(calls):
    """A handler that ends after its call was cancelled changes nothing of the outcome."""
    call = running(calls)
    calls.end(call.id, Outcome.CANCELLED, "by its client", 600)
    with contextlib.suppress(Fenced):
        calls.finish(call.id, W1, 1, Outcome.DONE, 600, response=(HEAD, b"late"))
    now = calls.look(call.id)
    assert (now.outcome, now.detail, now.body) == (Outcome.CANCELLED, "by its client", None)
    assert not calls.redis.exists(keys.held(W1))


def test_a_finish_of_a_vanished_record_is_fenced(calls):
    """A call whose record was deleted while it ran is not brought back by its end: nothing is left."""
    call = running(calls)
    forget(calls, call.id)
    with pytest.raises(Fenced):
        calls.finish(call.id, W1, 1, Outcome.DONE, 600, response=(HEAD, b"late"))
    assert calls.look(call.id).state is None
    assert traces(calls, call) == []


@pytest.mark.parametrize("how", ["finish", "recover"])
def test_a_stock_workers_job_is_left_to_it(calls, how):
    """RQ deletes the job that its own worker runs, and would fail where somebody else did."""
    call = queued(calls)
    hold(calls)
    calls.take(call.id, W1, stock=True)
    calls.redis.hset(rq_state.job_key(call.id), "worker_name", "of-rq")
    forget(calls, call.id)
    if how == "finish":
        with pytest.raises(Fenced):
            calls.finish(call.id, W1, 1, Outcome.DONE, 600)
    else:
        calls.recover(W1, None, "its end")
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
    calls.finish(call.id, W1, 1, outcome, 600, streamed=1)
    assert reader.poll() == []
    assert reader.end == end
    assert call.id in woken(calls, "reader")


# -- end


def test_cancel_in_the_queue(calls):
    """A queued call that is cancelled has ended, and wakes who waits."""
    call = queued(calls, inbox="waiting")
    assert calls.end(call.id, Outcome.CANCELLED, "not wanted", 600) is True
    now = calls.look(call.id)
    assert (now.state, now.outcome, now.detail) == ("ended", Outcome.CANCELLED, "not wanted")
    assert woken(calls, "waiting") == {call.id}


def test_cancel_while_it_runs(calls):
    """A running call that is cancelled has ended at once, and its pool is told to stop it."""
    call = running(calls, inbox="waiting")
    assert calls.end(call.id, Outcome.CANCELLED, "", 600) is True
    assert calls.look(call.id).ended
    assert woken(calls, "waiting") == woken(calls, f"pool-of-{W1}") == {call.id}


def test_cancel_breaks_the_stream_off(calls):
    """Who reads the response of a call that is cancelled sees it break, with all that was written."""
    call = running(calls)
    response_stream(calls, call.id, 1).offer(b"half")
    reader = StreamReader(calls.scripts, call.id, "reader", 1)
    calls.end(call.id, Outcome.CANCELLED, "", 600)
    assert (reader.poll(), reader.end) == ([b"half"], "broken")


def test_cancel_after_the_end(calls):
    """A call that has ended cannot be cancelled, nor can one twice."""
    call = ended(calls)
    before = everything(calls)
    assert calls.end(call.id, Outcome.CANCELLED, "", 600) is False
    assert everything(calls) == before
    other = queued(calls)
    assert calls.end(other.id, Outcome.CANCELLED, "first", 600) is True
    assert calls.end(other.id, Outcome.TIMEOUT, "second", 600) is False
    assert calls.look(other.id).detail == "first"


def test_cancel_of_nothing(calls):
    """An unknown call cannot be ended, and is not made by trying."""
    assert calls.end("fc-unknown", Outcome.CANCELLED, "", 600) is False
    assert calls.look("fc-unknown").state is None


def test_an_end_meant_for_an_old_attempt_is_dropped(calls):
    """A timeout of attempt 1 does not end attempt 2."""
    call = running(calls)
    calls.recover(W1, None, "died")
    hold(calls, W2)
    calls.take(call.id, W2)
    assert calls.end(call.id, Outcome.TIMEOUT, "", 600, attempt=1) is False
    assert calls.look(call.id).state == "running"
    assert calls.end(call.id, Outcome.TIMEOUT, "", 600, attempt=2) is True


@pytest.mark.parametrize("how", ["end", "recover"])
def test_what_was_sent_of_a_response_goes_with_its_call(calls, how):
    """The chunks of a response that broke off are kept no longer than the record that tells of it."""
    call = running(calls, method="POST", request=a_request(result_ttl=30.0))
    assert response_stream(calls, call.id, 1).offer(b"first")
    assert calls.redis.ttl(keys.response_body(call.id, 1)) > 30
    if how == "end":
        calls.end(call.id, Outcome.CANCELLED, "", 30)
    else:
        assert calls.recover(W1, None, "killed") == [(call.id, "lost")]
    assert 0 < calls.redis.ttl(keys.response_body(call.id, 1)) <= 30


def test_an_ended_call_is_not_listed_as_running(calls):
    """A call that was ended from outside leaves no trace among the started ones when its worker dies."""
    call = running(calls)
    # By somebody who knows its id only.
    Calls(calls.redis, "").end(call.id, Outcome.TIMEOUT, "", 600)
    calls.redis.unlink(*calls.kept(call.id, 1))
    assert calls.recover(W1, None, "killed") == [(call.id, "dropped")]
    assert calls.redis.zcard(rq_state.started_key(NAME)) == 0


# -- a function's large result


@pytest.mark.parametrize("how", ["end", "recover", "finish"])
def test_what_came_of_a_result_goes_with_its_call(calls, how):
    """A call that ends without its result keeps no chunk of it, and its attempt can write no more."""
    call = running(calls, method="CALL")
    calls.store(call.id, 1, 0, b"first")
    assert calls.redis.ttl(keys.value(call.id, 1)) == calls.redis.ttl(keys.call(call.id))
    if how == "end":
        calls.end(call.id, Outcome.CANCELLED, "", 600)
    elif how == "recover":
        calls.recover(W1, None, "killed")
    else:
        calls.finish(call.id, W1, 1, Outcome.TIMEOUT, 600)
    with pytest.raises(Fenced, match="attempt 1"):
        calls.store(call.id, 1, 1, b"second")
    assert not calls.redis.exists(keys.value(call.id, 1))


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.RAISED])
def test_a_large_result_is_kept_as_long_as_its_call(calls, outcome):
    """The chunks of a result that came whole live as long as the record that tells of it."""
    call = running(calls, method="CALL")
    for number in (0, 1, 1):
        calls.store(call.id, 1, number, b"chunk%d" % number)
    for _ in range(2):
        calls.finish(call.id, W1, 1, outcome, 30, chunks=2)
    assert calls.redis.hgetall(keys.value(call.id, 1)) == {b"0": b"chunk0", b"1": b"chunk1"}
    assert calls.redis.ttl(keys.value(call.id, 1)) == calls.redis.ttl(keys.call(call.id)) == 30


# -- recover


def test_a_call_that_never_began_goes_back_to_the_front(calls):
    """What a dead worker had moved but not begun runs before all that came after it, as its first attempt."""
    first, second = queued(calls), queued(calls)
    hold(calls)
    assert calls.recover(W1, None, "died") == [(first.id, "requeued")]
    assert queue(calls) == [first.id, second.id]
    hold(calls, W2)
    assert calls.take(first.id, W2).attempt == 1


@pytest.mark.parametrize("state", ["held", "running"])
def test_a_worker_that_was_given_up_begins_nothing(calls, state):
    """A worker that slept through its own recovery cannot begin what it held: nobody would recover that."""
    call = queued(calls)
    hold(calls)
    if state == "running":
        calls.take(call.id, W1)
    assert calls.recover(W1, None, "died") == [(call.id, "requeued")]
    assert calls.take(call.id, W1) is None
    assert queue(calls) == [call.id]


@pytest.mark.parametrize("fate", ["queued", "running", "ended", "deleted"])
def test_a_worker_that_was_given_up_changes_nothing(calls, fate):
    """Whatever became of a call, a worker that was given up neither begins it nor puts it back."""
    be_born(calls, W2)
    call = queued(calls)
    hold(calls)
    calls.recover(W1, None, "died")
    if fate in {"running", "ended"}:
        hold(calls, W2)
        calls.take(call.id, W2)
    if fate == "ended":
        calls.finish(call.id, W2, 1, Outcome.DONE, 600)
    if fate == "deleted":
        forget(calls, call.id)
    before = everything(calls)
    assert calls.take(call.id, W1) is None
    assert not calls.give_back(call.id, W1)
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

    def blocking(connection, worker, blocked):
        source = rq_state.queue_key(NAME)
        connection.send_command("BLMOVE", source, keys.held(worker), "LEFT", "RIGHT", 5)
        until(lambda: calls.redis.info("clients")["blocked_clients"] == blocked, what="the BLMOVE")

    if when == "before":
        blocking(gone, W1, 1)
    calls.recover(W1, None, "died")
    if when == "after":
        blocking(gone, W1, 1)
    blocking(living, W2, 2)
    call = queued(calls)
    assert living.read_response() == call.id.encode()
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        gone.read_response()
    assert calls.take(call.id, W2) is not None
    for connection in (gone, living):
        connection.disconnect()


def test_a_worker_that_is_gone_takes_nothing_by_script(calls):
    """A script that comes late takes no call in the name of a worker that is gone."""
    be_born(calls, W2)
    calls.recover(W1, None, "died")
    call = queued(calls)
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        calls.take("", W1)
    assert queue(calls) == [call.id]
    assert calls.look(call.id).state == "queued"


def test_a_call_that_was_put_back_is_not_begun(calls):
    """A call that a worker did not begin in time goes to others; one that it runs stays."""
    call = queued(calls)
    hold(calls)
    assert calls.give_back(call.id, W1)
    assert not calls.give_back(call.id, W1)
    assert calls.take(call.id, W1) is None
    hold(calls, W2)
    assert calls.give_back(call.id, W2)
    # Unless the queue gives it the call anew.
    hold(calls, W2)
    assert calls.take(call.id, W2).attempt == 1
    assert not calls.give_back(call.id, W2)
    assert calls.recover(W2, None, "died") == [(call.id, "requeued")]


def test_a_worker_that_makes_itself_known_again_takes_calls(calls):
    """A worker that repeats its first command, and counted as gone since the last time, takes calls."""
    call = queued(calls)
    be_born(calls, W1)
    assert calls.recover(W1, b"1", "silent") == []
    be_born(calls, W1)
    hold(calls)
    assert calls.take(call.id, W1).attempt == 1


def test_several_held_calls_keep_their_order(calls):
    """The calls that a dead worker held go back in the order in which they came."""
    several = [queued(calls).id for _ in range(3)]
    waiting = queued(calls)
    for _ in several:
        hold(calls)
    calls.recover(W1, None, "died")
    assert queue(calls) == [*several, waiting.id]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_an_idempotent_call_is_run_again(calls, method):
    """A call with an idempotent method is queued again, until `max_attempts` runs."""
    call = running(calls, method=method, max_attempts=2)
    assert calls.recover(W1, None, "died") == [(call.id, "requeued")]
    assert (calls.look(call.id).state, queue(calls)) == ("queued", [call.id])
    be_born(calls, W2)
    hold(calls, W2)
    assert calls.take(call.id, W2).attempt == 2
    assert calls.recover(W2, None, "died again") == [(call.id, "lost")]
    now = calls.look(call.id)
    assert (now.state, now.outcome, now.detail) == ("ended", Outcome.LOST, "died again")


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_another_call_is_lost(calls, method):
    """A call that must not run twice ends as lost, and wakes who waits."""
    call = running(calls, inbox="waiting", method=method)
    assert calls.recover(W1, None, "died") == [(call.id, "lost")]
    assert calls.look(call.id).outcome is Outcome.LOST
    assert (queue(calls), woken(calls, "waiting")) == ([], {call.id})


def test_one_attempt_forbids_a_second(calls):
    """With `max_attempts` 1 nothing is run again."""
    call = running(calls, max_attempts=1)
    assert calls.recover(W1, None, "died") == [(call.id, "lost")]


def test_a_response_that_was_handed_out_is_lost(calls):
    """Once a byte of the response was read no other run may replace it: the stream breaks off."""
    call = running(calls)
    response_stream(calls, call.id, 1).offer(b"begin")
    reader = StreamReader(calls.scripts, call.id, "reader", 1)
    assert reader.poll() == [b"begin"]
    assert calls.recover(W1, None, "died") == [(call.id, "lost")]
    assert (reader.poll(), reader.end) == ([], "broken")


def test_a_response_that_nobody_read_is_thrown_away(calls):
    """A response that no web process has seen is forgotten, and the call runs again."""
    call = running(calls)
    response_stream(calls, call.id, 1).offer(b"begin")
    assert calls.recover(W1, None, "died") == [(call.id, "requeued")]
    assert calls.look(call.id).head is None
    assert not calls.redis.exists(keys.response_body(call.id, 1))


def test_a_trimmed_request_body_is_lost(calls):
    """A call whose request body is not whole any more is not run again."""
    call = a_call(method="PUT", request=a_request(body=None))
    body = StreamWriter(calls.scripts, call.id, "uploader", Limits(10, 10), ttl=60)
    body.offer(b"12345678")
    calls.enqueue(call)
    hold(calls)
    calls.take(call.id, W1)
    reader = StreamReader(calls.scripts, call.id, "reader")
    reader.poll()
    reader.poll()
    assert body.offer(b"abcdefgh")
    assert calls.recover(W1, None, "died") == [(call.id, "lost")]


def test_a_second_run_reads_its_body_from_the_beginning(calls):
    """After a recovery nothing of the request body counts as read, so that nothing of it is trimmed."""
    call = a_call(method="PUT", request=a_request(body=None))
    body = StreamWriter(calls.scripts, call.id, "uploader", Limits(10, 10), ttl=60)
    body.offer(b"12345678")
    calls.enqueue(call)
    hold(calls)
    calls.take(call.id, W1)
    dead = StreamReader(calls.scripts, call.id, "dead")
    dead.poll()
    dead.poll()
    assert calls.recover(W1, None, "died") == [(call.id, "requeued")]
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
    assert calls.recover(W1, None, "died") == [(call.id, "dropped")]
    assert calls.look(call.id).detail == "before"


def test_a_call_without_a_record_is_dropped(calls):
    """A held id whose record was deleted while it ran is forgotten, whichever run it was; others stay."""
    be_born(calls, W2)
    other, call = running(calls, W2), running(calls)
    calls.retry(call.id, W1, 1, 0.0, "")
    calls.release()
    hold(calls)
    assert calls.take(call.id, W1).attempt == 2
    forget(calls, call.id)
    assert calls.recover(W1, None, "died") == [(call.id, "dropped")]
    assert traces(calls, call) == []
    assert calls.redis.zrange(rq_state.started_key(NAME), 0, -1) == [f"{other.id}:1".encode()]


def test_a_worker_with_a_newer_lease_is_not_recovered(calls):
    """An observer that saw an older lease than the present one changes nothing."""
    call = running(calls)
    calls.renew([W1])
    before = everything(calls)
    assert calls.recover(W1, b"1", "silent") is None
    assert everything(calls) == before
    assert calls.recover(W1, b"2", "silent") == [(call.id, "requeued")]


def test_a_recovery_happens_once(calls):
    """Of two observers of a dead worker only the first settles its calls."""
    call = running(calls)
    assert calls.recover(W1, b"1", "silent") == [(call.id, "requeued")]
    before = everything(calls)
    assert calls.recover(W1, b"1", "silent") is None
    assert calls.recover(W1, None, "silent") == []
    assert everything(calls) == before


def test_a_recovered_worker_is_forgotten(calls):
    """Of a dead worker no lease, no description and no entry of RQ's stays: only what keeps calls from it."""
    calls.recover(W1, None, "died")
    assert [key for key in everything(calls) if W1.encode() in key] == [keys.held(W1).encode()]
    assert 0 < calls.redis.ttl(keys.held(W1)) <= keys.FENCE_TTL
    assert calls.redis.hgetall(keys.leases(NAME)) == {}
    assert calls.redis.smembers(rq_state.WORKERS) == set()
    assert calls.redis.smembers(rq_state.workers_of_queue_key(NAME)) == set()


# -- leases


def test_renewing_raises_each_lease(calls):
    """A renewal raises the leases of live workers by one, and reports none lost."""
    be_born(calls, W2)
    assert calls.renew([W1, W2]) == []
    assert calls.redis.hgetall(keys.leases(NAME)) == {W1.encode(): b"2", W2.encode(): b"2"}


def test_renewing_reports_lost_workers(calls):
    """A worker whose lease was lost is named, and is not brought back by its renewal."""
    be_born(calls, W2)
    calls.recover(W1, None, "silent")
    assert calls.renew([W1, W2]) == [W1]
    assert list(calls.redis.hgetall(keys.leases(NAME))) == [W2.encode()]


def test_registering_twice_keeps_the_lease(calls):
    """A repeated registration, after a lost reply, does not lower the lease."""
    calls.renew([W1])
    be_born(calls, W1)
    assert calls.redis.hget(keys.leases(NAME), W1) == b"2"


# -- deliver


def test_a_delivered_result_without_url_is_deleted(calls):
    """A result whose URL was never given out is gone with its delivery, without a tombstone."""
    call = ended(calls)
    calls.redis.unlink(*calls.kept(call.id, 1))
    assert not any(call.id.encode() in key for key in everything(calls))
    assert calls.authorize(call.id, call.token, call.path) is None


def test_a_delivered_result_stays_for_the_grace(calls):
    """A result that was redirected to can be had again for the grace, and no longer."""
    call = ended(calls)
    calls.deliver(call.id, call.token, call.path, 1, 30)
    found = calls.authorize(call.id, call.token, call.path)
    assert found.body == b"body"
    assert now_ms() - 5000 <= found.delivered_ms <= now_ms()
    assert 0 < calls.redis.pttl(keys.call(call.id)) <= 30_000


def test_a_second_delivery_does_not_prolong_the_grace(calls):
    """The time of the first delivery stands, and the grace runs from there."""
    call = ended(calls)
    calls.deliver(call.id, call.token, call.path, 1, 30)
    before = everything(calls)
    calls.deliver(call.id, call.token, call.path, 1, 300)
    assert calls.redis.pttl(keys.call(call.id)) <= 30_000
    assert everything(calls) == before


def test_no_grace(calls):
    """With a grace of zero only the tombstone stays."""
    call = ended(calls)
    calls.deliver(call.id, call.token, call.path, 1, 0)
    assert [key for key in everything(calls) if call.id.encode() in key] == [keys.tombstone(call.id).encode()]


def test_delivery_deletes_the_streams(calls):
    """The streams of a call go with it: the request's at its delivery, the response's after the grace."""
    call = a_call(method="PUT", request=a_request(body=None))
    StreamWriter(calls.scripts, call.id, "uploader", ROOMY, ttl=60).offer(b"request")
    calls.enqueue(call)
    hold(calls)
    calls.take(call.id, W1)
    response_stream(calls, call.id, 1).offer(b"response")
    calls.finish(call.id, W1, 1, Outcome.DONE, 600, streamed=1)
    calls.deliver(call.id, call.token, call.path, 1, 30)
    assert not calls.redis.exists(keys.request_body(call.id))
    assert 0 < calls.redis.pttl(keys.response_body(call.id, 1)) <= 30_000


def test_what_has_not_ended_is_not_delivered(calls):
    """A delivery noted for a running call changes nothing."""
    call = running(calls)
    before = everything(calls)
    calls.deliver(call.id, call.token, call.path, 1, 30)
    assert everything(calls) == before


# -- authorize


def test_the_token_opens_a_call_on_its_path(calls):
    """Id, token and path together give the call."""
    call = ended(calls)
    assert calls.authorize(call.id, call.token, call.path).body == b"body"


def wrong_keys(call):
    return [
        ("fc-unknown", call.token, call.path),
        (call.id, new_token(), call.path),
        (call.id, "", call.path),
        (call.id, call.token, "/other"),
        (call.id, call.token, ""),
        (call.id, call.token[:-1], call.path),
        (call.id, "\xe9" * 32, call.path),
    ]


def test_a_wrong_key_opens_nothing(calls):
    """An unknown id, a wrong token and a wrong path give the same: nothing."""
    call = ended(calls)
    assert [calls.authorize(*wrong) for wrong in wrong_keys(call)] == [None] * 7


def test_a_tombstone_needs_the_same_key(calls):
    """After the grace only the right token on the right path learns that there was a delivery."""
    call = ended(calls)
    calls.deliver(call.id, call.token, call.path, 1, 0)
    grave = calls.authorize(call.id, call.token, call.path)
    assert isinstance(grave, Tombstone)
    assert now_ms() - 5000 <= grave.delivered_ms <= now_ms()
    assert [calls.authorize(*wrong) for wrong in wrong_keys(call)] == [None] * 7


def test_a_tombstone_is_small(calls):
    """What stays of a delivered call takes at most 60 bytes, and lives for a week."""
    call = ended(calls)
    calls.deliver(call.id, call.token, call.path, 1, 0)
    assert calls.redis.strlen(keys.tombstone(call.id)) <= 60
    assert 0 < calls.redis.ttl(keys.tombstone(call.id)) <= keys.TOMBSTONE_TTL


def test_a_token_lies_in_its_record_only(calls):
    """No key, queue, description or inbox carries a token."""
    call = ended(calls)
    found = {key: str(value) for key, value in everything(calls).items()}
    assert [key for key, text in found.items() if call.token in text] == [keys.call(call.id).encode()]


# -- retry, release


def test_a_retry_begins_after_its_pause(calls):
    """A function's attempt that is to be retried waits outside the queue, then runs as the next attempt."""
    call = running(calls)
    calls.retry(call.id, W1, 1, 1.0, "raised")
    assert (calls.look(call.id).state, queue(calls)) == ("delayed", [])
    assert not calls.redis.exists(keys.held(W1))
    calls.release()
    assert queue(calls) == []
    until(lambda: calls.release() or queue(calls), what="the end of its pause")
    assert (calls.look(call.id).state, queue(calls)) == ("queued", [call.id])
    hold(calls)
    assert calls.take(call.id, W1).attempt == 2


def test_a_repeated_retry_changes_nothing(calls):
    """A worker whose reply was lost asks for its retry again, without effect or error."""
    call = running(calls)
    calls.retry(call.id, W1, 1, 60, "raised")
    before = everything(calls)
    calls.retry(call.id, W1, 1, 90, "raised")
    assert everything(calls) == before


def test_a_given_up_attempt_is_not_retried(calls):
    """An attempt that is no longer the current one cannot have the call run again."""
    call = running(calls)
    calls.recover(W1, None, "died")
    with pytest.raises(Fenced):
        calls.retry(call.id, W1, 1, 0, "raised")
    assert queue(calls) == [call.id]


@pytest.mark.parametrize("again", ["retry", "finish"])
def test_a_late_repeat_leaves_the_next_attempt_its_hold(calls, again):
    """What a worker repeats about one attempt takes nothing from the next one, which it runs by then."""
    call = running(calls)
    calls.retry(call.id, W1, 1, 0, "raised")
    until(lambda: calls.release() or queue(calls), what="its pause")
    hold(calls)
    repeats = {
        "retry": lambda: calls.retry(call.id, W1, 1, 0, "raised"),
        "finish": lambda: calls.finish(call.id, W1, 1, Outcome.DONE, 600),
    }
    for _ in range(2):
        with pytest.raises(Fenced):
            repeats[again]()
        assert calls.redis.lrange(keys.held(W1), 0, -1) == [call.id.encode()]
        calls.take(call.id, W1)
    assert calls.recover(W1, None, "died") == [(call.id, "lost")]


@pytest.mark.parametrize("how", ["recover", "retry"])
def test_a_call_that_is_queued_again_has_its_whole_time(calls, how):
    """`queue_ttl` counts anew from a requeue, and ends a call then too."""
    call = running(calls, queue_ttl=1.0)
    since = time.monotonic()
    until(lambda: time.monotonic() - since > 1.1)
    again = time.monotonic()
    if how == "recover":
        calls.recover(W1, None, "died")
    else:
        calls.retry(call.id, W1, 1, 0, "raised")
        until(lambda: calls.release() or queue(calls), what="its pause")
    assert calls.join(call.id, "inbox").state == "queued"
    until(lambda: calls.join(call.id, "inbox").ended, what="its end")
    assert time.monotonic() - again > 0.8
    assert calls.look(call.id).outcome is Outcome.TIMEOUT


def test_a_retry_that_nobody_queues_ends(calls):
    """A call whose pause is over, and which no pool is left to queue, has an outcome after `queue_ttl`."""
    call = running(calls, queue_ttl=0.4)
    calls.retry(call.id, W1, 1, 0.4, "raised")
    paused = time.monotonic()
    assert calls.join(call.id, "inbox").state == "delayed"
    until(lambda: calls.join(call.id, "inbox").ended, what="its end")
    assert time.monotonic() - paused > 0.7
    assert calls.look(call.id).outcome is Outcome.TIMEOUT
    assert call.id in woken(calls, "inbox")
    calls.release()
    assert queue(calls) == []


def test_our_own_clock_may_jump(calls, monkeypatch):
    """When this process's clock is set forward, the moment until which a call is accepted is not."""
    before = calls._last_moment()
    monkeypatch.setattr("time.time_ns", lambda: 2**62)
    assert 0 <= calls._last_moment() - before < 5000


def test_a_worker_outlives_its_description(calls):
    """Renewals make no key without a TTL for a worker whose description is gone, and keep one for weeks."""
    calls.register(W1, "inbox", {"target": "any"}, {"birth": "any"})
    described = [keys.worker(W1), rq_state.worker_key(W1)]
    assert [calls.redis.ttl(key) > 7 * 86_400 for key in described] == [True, True]
    calls.redis.unlink(*described)
    assert calls.renew([W1]) == []
    assert not calls.redis.exists(*described)


def test_a_delayed_call_can_be_cancelled(calls):
    """A call that waits for its retry can be cancelled, and is not queued when its pause is over."""
    call = running(calls)
    calls.retry(call.id, W1, 1, 0, "raised")
    assert calls.end(call.id, Outcome.CANCELLED, "", 600) is True
    calls.release()
    assert (queue(calls), calls.look(call.id).outcome) == ([], Outcome.CANCELLED)
    assert calls.redis.zcard(keys.delayed(NAME)) == 0


def test_a_call_that_was_popped_and_not_started_goes_back(calls):
    """What a worker gives back, or a stock worker of RQ lost, stands at the front of the queue again."""
    call, later = queued(calls), queued(calls)
    hold(calls)
    calls.give_back(call.id, W1)
    assert queue(calls) == [call.id, later.id]
    calls.redis.lmove(rq_state.queue_key(NAME), rq_state.intermediate_key(NAME), "LEFT", "LEFT")
    for _ in range(2):
        calls.put_back(call.id)
        assert queue(calls) == [call.id, later.id]


# -- join, progress, status


def test_joining_makes_an_inbox_woken(calls):
    """Every inbox that joined a call is woken by its end, once for each."""
    call = running(calls, inbox="first")
    for inbox in ("second", "second", "first"):
        assert calls.join(call.id, inbox).state == "running"
    calls.finish(call.id, W1, 1, Outcome.DONE, 600, response=(HEAD, b""))
    for inbox in ("first", "second"):
        (wake,) = calls.redis.lrange(keys.inbox(inbox), 0, -1)
        assert wake.startswith(call.id.encode())
        assert 0 < calls.redis.ttl(keys.inbox(inbox)) <= keys.INBOX_TTL


def test_joining_what_is_not_there(calls):
    """Joining an unknown call says so and makes nothing; an ended call is returned as it is."""
    assert calls.join("fc-unknown", "inbox").state is None
    assert calls.look("fc-unknown").state is None
    call = ended(calls)
    before = everything(calls)
    assert calls.join(call.id, "inbox").body == b"body"
    assert everything(calls) == before


def test_progress_of_the_current_attempt(calls):
    """Progress is shown for the run that reports it; an old run's word is dropped."""
    call = running(calls)
    calls.progress(call.id, 1, {"done": 1})
    assert calls.status(call.id)["progress"] == '{"done": 1}'
    calls.recover(W1, None, "died")
    calls.progress(call.id, 1, {"done": 2})
    assert "progress" not in calls.status(call.id)
    calls.progress("fc-unknown", 1, {"done": 3})
    assert calls.look("fc-unknown").state is None


def test_the_position_counts_what_was_taken(calls):
    """A queued call's position goes down to 1 as those before it are taken."""
    first, second, third = queued(calls), queued(calls), queued(calls)
    position = [calls.status(call.id)["position"] for call in (first, second, third)]
    assert position == [1, 2, 3]
    for call in (first, second):
        hold(calls)
        calls.take(call.id, W1)
    assert "position" not in calls.status(first.id)
    assert calls.status(third.id)["position"] == 1


def test_a_requeued_call_stands_in_front(calls):
    """A call that is run again is first in the queue, and does not set others back."""
    first, second = running(calls), queued(calls)
    calls.recover(W1, None, "died")
    assert calls.status(first.id)["position"] == 1
    hold(calls, W2)
    calls.take(first.id, W2)
    assert calls.status(second.id)["position"] == 1


def test_the_status_shows_times(calls):
    """Each state of a call leaves its time, in ms since 1970, in order."""
    call = ended(calls)
    calls.deliver(call.id, call.token, call.path, 1, 30)
    found = calls.status(call.id)
    times = [int(found[field]) for field in ("created", "started", "ended", "delivered")]
    assert times == sorted(times)
    assert now_ms() - 5000 <= times[0]
    assert times[-1] <= now_ms()
    assert (found["state"], found["outcome"], found["attempt"]) == ("ended", "done", "1")
    assert calls.status("fc-unknown") == {}


def test_a_call_whose_body_is_lost_is_not_accepted(calls):
    """A call is not queued when what should go with it is no longer there."""
    call = a_call(request=a_request(body=None))
    with pytest.raises(RedisUnavailable, match="lost"):
        calls.enqueue(call)
    assert queue(calls) == []
    assert not calls.redis.exists(keys.call(call.id))
    StreamWriter(calls.scripts, call.id, "uploader", ROOMY, ttl=60).offer(b"all")
    calls.enqueue(call)
    assert queue(calls) == [call.id]


# -- keys


def test_every_key_has_a_ttl(calls):
    """After calls of every fate no key without a TTL is left but those that the table lists."""
    be_born(calls, W2)
    calls.redis.unlink(*calls.kept(ended(calls).id, 1))
    for grace in (0, 30):
        call = ended(calls)
        calls.deliver(call.id, call.token, call.path, 1, grace)
    queued(calls, inbox="inbox")
    hold(calls)
    for fate in (Outcome.CANCELLED, Outcome.TIMEOUT):
        call = queued(calls)
        calls.redis.lrem(rq_state.queue_key(NAME), 1, call.id)
        calls.redis.rpush(keys.held(W2), call.id)
        calls.take(call.id, W2)
        response_stream(calls, call.id, 1).offer(b"begin")
        StreamReader(calls.scripts, call.id, "reader", 1).poll()
        calls.end(call.id, fate, "", 600)
    upload = StreamWriter(calls.scripts, new_id(), "uploader", ROOMY, ttl=60)
    upload.offer(b"never queued")
    StreamWriter(calls.scripts, new_id(), "uploader", ROOMY, ttl=60).close("complete", 60)
    for reader in (StreamReader(calls.scripts, new_id(), "reader", 1), StreamReader(calls.scripts, "x", "r")):
        reader.poll()
        reader.leave()
    zombie = queued(calls)
    calls.redis.lrem(rq_state.queue_key(NAME), 1, zombie.id)
    calls.redis.rpush(keys.held(W2), zombie.id)
    calls.take(zombie.id, W2)
    calls.recover(W2, None, "silent")
    with pytest.raises(Fenced):
        calls.finish(zombie.id, W2, 1, Outcome.DONE, 600)
    calls.take(zombie.id, W2)
    calls.renew([W1, W2])
    assert eternal(calls.redis) == []
    assert len([key for key in calls.redis.scan_iter() if calls.redis.ttl(key) == -1]) >= 6


def test_an_id_is_one_that_rq_takes():
    """Ids and tokens are random and consist of what URLs and RQ allow."""
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"fc-[A-Za-z0-9_-]{22}", call_id) for call_id in ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", new_token()) for _ in range(100))


def test_scripts_survive_a_flushed_script_cache(calls):
    """A server that has forgotten its scripts, after a restart, is given them again unseen."""
    call = queued(calls)
    calls.redis.script_flush()
    hold(calls)
    assert calls.take(call.id, W1) is not None


def test_a_wrong_type_is_not_hidden(calls):
    """An error that is neither an outage nor a refusal comes through."""
    calls.redis.set(keys.call("fc-broken"), "no hash")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        calls.look("fc-broken")
