"""The call record: what each script changes, that it may run twice, and that nothing is left behind."""

import re
from dataclasses import replace

import pytest
import redis
from call_steps import (
    HEAD,
    ROOMY,
    W1,
    W2,
    a_call,
    a_request,
    be_born,
    ended,
    everything,
    fresh_calls,
    hold,
    queue,
    queued,
    response_stream,
    running,
    woken,
)
from halves import BothHalves
from remains import eternal

from wsgi_timeout.errors import Fenced, NoWorker, QueueFull, RedisUnavailable
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.calls import forget
from wsgi_timeout.store.messages import FunctionRequest
from wsgi_timeout.store.record import Attempt, Outcome, Tombstone, new_id, new_token, now_ms
from wsgi_timeout.store.streams import StreamReader, StreamWriter

NAME = "calls"


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


# -- end


def test_a_record_outlives_all_runs_of_its_call(calls):
    """A function's record is kept for as long as the call may wait and run, each retry included."""
    function = FunctionRequest("f", b"", 60.0, 3, 1.0, 65536, 1 << 20, 60.0)
    call = replace(a_call(max_attempts=1, queue_ttl=100.0), method="CALL", request=function)
    calls.enqueue(call)
    assert calls.redis.ttl(keys.call(call.id)) >= 4 * (100 + 60)


def test_cancel_in_the_queue(calls):
    """A queued call that is cancelled has ended, and wakes its waiters."""
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


def test_a_repeated_cancel_is_told_the_same(calls, monkeypatch):
    """Who sends a cancel again, after a lost reply, is told that it was carried out."""
    call = running(calls)
    monkeypatch.setattr("wsgi_timeout.store.queue.now_ms", lambda: 1_000_000_000_000)
    assert calls.end(call.id, Outcome.CANCELLED, "", 600) is True
    before = everything(calls)
    assert calls.end(call.id, Outcome.CANCELLED, "", 600) is True
    assert everything(calls) == before


def test_cancel_of_nothing(calls):
    """An unknown call cannot be ended, and is not made by trying."""
    assert calls.end("fc-unknown", Outcome.CANCELLED, "", 600) is False
    assert calls.look("fc-unknown").state is None


def test_an_end_meant_for_an_old_attempt_is_dropped(calls):
    """A timeout of attempt 1 does not end attempt 2."""
    call = running(calls)
    calls.workers.recover(W1, None, "died")
    hold(calls, W2)
    calls.attempts.take(call.id, W2)
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
        assert calls.workers.recover(W1, None, "killed") == [(call.id, "lost")]
    assert 0 < calls.redis.ttl(keys.response_body(call.id, 1)) <= 30


def test_an_ended_call_is_not_listed_as_running(calls):
    """A call that was ended from outside leaves no trace among the started ones when its worker dies."""
    call = running(calls)
    # By somebody who knows its id only.
    BothHalves(calls.redis, "").end(call.id, Outcome.TIMEOUT, "", 600)
    forget(calls.scripts, calls.name, {call.id: 1})
    assert calls.workers.recover(W1, None, "killed") == [(call.id, "dropped")]
    assert calls.redis.zcard(rq_state.started_key(NAME)) == 0


# -- deliver


def test_a_delivered_result_without_url_is_deleted(calls):
    """A result whose URL was never given out is gone with its delivery, without a tombstone."""
    call = ended(calls)
    forget(calls.scripts, calls.name, {call.id: 1})
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
    assert not [key for key in everything(calls) if call.id.encode() in key]
    assert calls.redis.hkeys(keys.tombstones(NAME)) == [call.id.encode()]


def test_delivery_deletes_the_streams(calls):
    """The streams of a call go with it: the request's at its delivery, the response's after the grace."""
    call = a_call(method="PUT", request=a_request(body=None))
    StreamWriter(calls.scripts, call.id, "uploader", ROOMY, ttl=60).offer(b"request")
    calls.enqueue(call)
    hold(calls)
    calls.attempts.take(call.id, W1)
    response_stream(calls, call.id, 1).offer(b"response")
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, streamed=1)
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
    assert calls.redis.hstrlen(keys.tombstones(NAME), call.id) <= 60
    for key in (keys.tombstones(NAME), keys.tombstone_ids(NAME)):
        assert 0 < calls.redis.ttl(key) <= keys.TOMBSTONE_TTL


def test_tombstones_are_bounded(calls, monkeypatch):
    """No more than so many are kept of one name: the oldest ones go."""
    monkeypatch.setattr(keys, "MOST_TOMBSTONES", 3)
    delivered = [ended(calls) for _ in range(5)]
    for call in delivered:
        calls.deliver(call.id, call.token, call.path, 1, 0)
    found = [calls.authorize(call.id, call.token, call.path) for call in delivered]
    assert [isinstance(each, Tombstone) for each in found] == [False, False, True, True, True]
    assert calls.redis.hlen(keys.tombstones(NAME)) == calls.redis.llen(keys.tombstone_ids(NAME)) == 3


def test_a_tombstone_has_its_time(calls, monkeypatch):
    """What is older than a week is not told any more, and goes with a later delivery."""
    old = ended(calls)
    calls.deliver(old.id, old.token, old.path, 1, 0)
    calls.redis.lset(keys.tombstone_ids(NAME), 0, f"1 {old.id}")
    call = ended(calls)
    calls.deliver(call.id, call.token, call.path, 1, 0)
    assert calls.redis.hkeys(keys.tombstones(NAME)) == [call.id.encode()]
    monkeypatch.setattr(keys, "TOMBSTONE_TTL", -1)
    assert calls.authorize(call.id, call.token, call.path) is None


def test_a_token_lies_in_its_record_only(calls):
    """No key, queue, description or inbox carries a token."""
    call = ended(calls)
    found = {key: str(value) for key, value in everything(calls).items()}
    assert [key for key, text in found.items() if call.token in text] == [keys.call(call.id).encode()]


# -- join, progress, status


def test_joining_makes_an_inbox_woken(calls):
    """Every inbox that joined a call is woken by its end, once for each."""
    call = running(calls, inbox="first")
    for inbox in ("second", "second", "first"):
        assert calls.join(call.id, inbox).state == "running"
    calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b""))
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
    calls.attempts.progress(Attempt(call.id, 1, W1), {"done": 1})
    assert calls.status(call.id)["progress"] == '{"done": 1}'
    calls.workers.recover(W1, None, "died")
    calls.attempts.progress(Attempt(call.id, 1, W1), {"done": 2})
    assert "progress" not in calls.status(call.id)
    calls.attempts.progress(Attempt("fc-unknown", 1, W1), {"done": 3})
    assert calls.look("fc-unknown").state is None


def test_the_position_counts_what_was_taken(calls):
    """A queued call's position goes down to 1 as those before it are taken."""
    first, second, third = queued(calls), queued(calls), queued(calls)
    position = [calls.status(call.id)["position"] for call in (first, second, third)]
    assert position == [1, 2, 3]
    for call in (first, second):
        hold(calls)
        calls.attempts.take(call.id, W1)
    assert "position" not in calls.status(first.id)
    assert calls.status(third.id)["position"] == 1


def test_a_requeued_call_stands_in_front(calls):
    """A call that is run again is first in the queue, and does not set others back."""
    first, second = running(calls), queued(calls)
    calls.workers.recover(W1, None, "died")
    assert calls.status(first.id)["position"] == 1
    hold(calls, W2)
    calls.attempts.take(first.id, W2)
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
    forget(calls.scripts, calls.name, {ended(calls).id: 1})
    for grace in (0, 30):
        call = ended(calls)
        calls.deliver(call.id, call.token, call.path, 1, grace)
    queued(calls, inbox="inbox")
    hold(calls)
    for fate in (Outcome.CANCELLED, Outcome.TIMEOUT):
        call = queued(calls)
        calls.redis.lrem(rq_state.queue_key(NAME), 1, call.id)
        calls.redis.rpush(keys.held(W2), call.id)
        calls.attempts.take(call.id, W2)
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
    calls.attempts.take(zombie.id, W2)
    calls.workers.recover(W2, None, "silent")
    with pytest.raises(Fenced):
        calls.attempts.finish(Attempt(zombie.id, 1, W2), Outcome.DONE, 600)
    calls.attempts.take(zombie.id, W2)
    calls.workers.renew([W1, W2])
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
    assert calls.attempts.take(call.id, W1) is not None


def test_a_wrong_type_is_not_hidden(calls):
    """An error that is neither an outage nor a refusal comes through."""
    calls.redis.set(keys.call("fc-broken"), "no hash")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        calls.look("fc-broken")
