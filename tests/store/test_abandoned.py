"""Calls that are abandoned when nobody asks for them, as scripts know them."""

import pytest
from call_steps import ended, fresh_calls, queued, running

from wsgi_timeout.store import keys, workers
from wsgi_timeout.store.record import Outcome

FOR_LONG = 1000.0


@pytest.fixture
def calls(redis_server, monkeypatch):
    monkeypatch.setattr(workers, "_RECOUNT_MS", 0)
    with fresh_calls(redis_server, "abandoned") as calls:
        yield calls


def listed(calls):
    return [call_id.decode() for call_id in calls.redis.zrange(keys.abandon_times(calls.name), 0, -1)]


def long_ago(calls, call):
    """Set the moment in which a call is abandoned to one that has passed."""
    calls.workers.recount()
    calls.redis.zadd(keys.abandon_times(calls.name), {call.id: 1})


def test_only_what_says_so_is_listed(calls):
    """A call without the setting costs nothing for it."""
    running(calls)
    assert not calls.redis.exists(keys.abandon_times(calls.name))


def test_a_running_call_nobody_asks_for_is_found(calls):
    """It is found once its time has passed, and not again at once; before that it is not."""
    call = running(calls, abandon_after=FOR_LONG)
    left = calls.redis.zscore(keys.abandon_times(calls.name), call.id) / 1000 - calls.redis.time()[0]
    assert FOR_LONG / 2 < left <= FOR_LONG + 1
    assert calls.workers.recount() == ([], [])
    long_ago(calls, call)
    assert calls.workers.recount() == ([], [call.id])
    assert calls.workers.recount() == ([], [])


@pytest.mark.parametrize("how", ["waits", "joins", "looks"])
def test_who_asks_keeps_it(calls, how):
    """A request that waits, a hop that begins, and a look at the status each count anew."""
    call = running(calls, abandon_after=FOR_LONG)
    long_ago(calls, call)
    if how == "waits":
        calls.workers.wanted([call.id, "fc-another"])
    elif how == "joins":
        calls.join(call.id, "inbox")
    else:
        assert "abandon" not in calls.status(call.id)
    assert calls.workers.recount() == ([], [])
    assert listed(calls) == [call.id]


def test_what_waits_in_the_queue_is_left_there(calls):
    """A queued call is not abandoned: its time begins about when it runs."""
    call = queued(calls, abandon_after=FOR_LONG)
    long_ago(calls, call)
    assert calls.workers.recount() == ([], [])
    assert listed(calls) == [call.id]


def test_what_a_caller_alone_knows_is_abandoned_in_the_queue_too(calls):
    """A `remote` call whose caller has died does not begin."""
    call = queued(calls, abandon_after=FOR_LONG, method="CALL")
    long_ago(calls, call)
    assert calls.workers.recount() == ([], [call.id])


def test_after_a_silence_those_who_wait_have_time_to_say_so(calls):
    """Redis was away, and nobody could ask: what is due then is left for some seconds."""
    call = running(calls, abandon_after=FOR_LONG)
    long_ago(calls, call)
    calls.redis.hset(calls.buffered, "@", 1)
    assert calls.workers.recount() == ([], [])
    assert calls.redis.zscore(keys.abandon_times(calls.name), call.id) > 1


def test_what_has_ended_is_listed_no_more(calls):
    """The list holds calls for as long as they said, and then forgets those that have ended."""
    call = ended(calls, abandon_after=FOR_LONG)
    long_ago(calls, call)
    assert calls.workers.recount() == ([], [])
    assert not calls.redis.exists(keys.abandon_times(calls.name))
    assert not calls.workers.end(call.id, Outcome.CANCELLED, "", None)
