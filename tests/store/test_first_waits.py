"""Notes of navigations that wait: who takes a call over, and when it is nobody's."""

import pytest
from halves import BothHalves

from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.enqueue import FirstWaitNoted
from wsgi_timeout.store.first_waits import FirstWaitNotes, Left
from wsgi_timeout.store.messages import CallRequest
from wsgi_timeout.store.record import NewCall, Origin, new_id


@pytest.fixture
def calls(redis_server):
    return BothHalves(connect(redis_server.url, connections=2), "first")


def queued(calls, note=""):
    """Queue a call, unless there is such a note."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": ""}
    request = CallRequest(environ, b"", "", 60.0, 65536, 1 << 20, 1 << 20, 60.0, 60.0)
    call = NewCall(
        *(new_id(), "token", "/", "GET", request, 1, 1000, 60.0, 10**12),
        needs_worker=False,
        origin=Origin(b"asked"),
        first_wait=note,
    )
    calls.enqueue(call, "inbox")
    return call.id


@pytest.fixture
def noted(calls):
    """The notes of two web processes, a note that the first one has made, and its call."""
    here, there = FirstWaitNotes(calls, "here"), FirstWaitNotes(calls, "there")
    call_id = queued(calls)
    note = here.key(call_id)
    assert here.begin(note, call_id, "token", 5) == ""
    return here, there, note, call_id


def test_a_call_is_taken_over_when_its_client_has_left(calls, noted):
    """While its client is there it is asked after; then the next one has the call, and a repeat too."""
    here, there, note, call_id = noted
    with pytest.raises(FirstWaitNoted):
        queued(calls, note)
    assert there.take(note, "b", 10, 5) < 5
    assert calls.redis.lrange("wt:inbox:here", 0, -1) == [call_id.encode()]
    here.leave(note, call_id)
    taken = Left(call_id, "token", Origin(b"asked", "*"))
    assert there.take(note, "b", 10, 5) == there.take(note, "b", 10, 5) == taken
    assert isinstance(there.take(note, "c", 10, 5), float)
    # It is not the first one's any more, whatever that one does.
    here.leave(note, call_id)
    here.end(note, call_id)
    assert not here.expire(note, call_id)
    assert isinstance(there.take(note, "c", 10, 5), float)
    there.end(note, call_id)
    assert there.take(note, "c", 10, 5) is None


def test_who_comes_late_takes_nothing_over(calls, noted):
    """What was left longer ago than who asks may wait, and what has gone, is nobody's."""
    here, there, note, call_id = noted
    here.leave(note, call_id)
    assert there.take(note, "b", -1, 5) is None
    assert not here.expire(note, call_id)
    another = queued(calls)
    assert here.begin(note, another, "token", 5) == call_id
    here.leave(note, another)
    calls.redis.unlink(f"wt:call:{another}")
    assert there.take(note, "b", 10, 5) is None
    assert not calls.redis.exists(note)
