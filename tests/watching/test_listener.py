"""One listener that wakes every request of a process, and the places that requests take."""

import contextlib
import logging
import signal
import socket
import threading
import time
from functools import partial

import pytest
from call_steps import HEAD, W1, ended, fresh_calls, queued, response_stream, running
from harness import RedisServer, until

from wsgi_timeout.store import keys
from wsgi_timeout.store.connection import Commands, connect
from wsgi_timeout.store.record import Attempt, Outcome, new_id
from wsgi_timeout.watching import listener as waiting
from wsgi_timeout.watching.listener import Listener, drain

#: Seconds after which a test says that nothing came. A wake takes milliseconds.
SOON = 1.5
QUIET = 0.3


@pytest.fixture
def calls(redis_server):
    with fresh_calls(redis_server, "waiting") as calls:
        yield calls


@pytest.fixture(scope="module")
def listener(redis_server):
    """A listener whose thread runs already, and lasts as long as the tests."""
    # It outlives the server too, and would say so after the last test.
    logging.getLogger("wsgi_timeout").addHandler(logging.NullHandler())
    listener = Listener(partial(connect, redis_server.url + "?db=1", connections=1))
    with listener.waiter("nobody") as waiter:
        until(lambda: not waiter._sleep._lock.locked())
    return listener


@pytest.fixture
def own_server():
    """A server that a test may stop."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def often(monkeypatch):
    """Looks at the calls themselves in short intervals."""
    monkeypatch.setattr(waiting, "RECHECK_SECONDS", 0.1)


def woken(waiter, seconds=SOON):
    """Wait as a request does; returns whether something came."""
    began = time.monotonic()
    waiter.wait(seconds)
    return time.monotonic() - began < seconds


def settle(listener):
    """Return when the listener has seen all that was pushed before."""
    with listener.waiter("a probe") as probe:
        with listener._make_client() as client:
            client.rpush(keys.inbox(listener.inbox), "a probe")
        assert woken(probe, 5)


# -- wakes


# A call that runs on: no look at its record wakes anybody, so that what comes is a wake.


def wake(calls, listener, *ids):
    calls.redis.rpush(keys.inbox(listener.inbox), *ids)


def test_a_wake_reaches_the_waiters_of_its_call(calls, listener):
    """All waiters of a call are woken by one message, and no others."""
    call, other = running(calls), queued(calls)
    with contextlib.ExitStack() as held:
        several = [held.enter_context(listener.waiter(call.id)) for _ in range(3)]
        another = held.enter_context(listener.waiter(other.id))
        wake(calls, listener, call.id)
        assert all(woken(waiter) for waiter in several)
        assert not woken(another, QUIET)


def test_the_end_of_a_call_is_a_wake(calls, listener):
    """A call that ends wakes its waiters by this process's inbox."""
    call = running(calls, inbox=listener.inbox)
    with listener.waiter(call.id) as waiter:
        calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b""))
        assert woken(waiter)


def test_a_wake_before_the_wait_is_not_lost(calls, listener):
    """A wake between the reset and the wait ends the wait at once, and only that wait."""
    call = running(calls)
    with listener.waiter(call.id) as waiter:
        waiter.reset()
        wake(calls, listener, call.id)
        until(lambda: not waiter._sleep._lock.locked(), SOON)
        assert woken(waiter, 60)
        waiter.reset()
        assert not woken(waiter, QUIET)


def test_many_wakes_at_once(calls, listener):
    """Wakes by the thousand, more than one read takes, reach their waiters."""
    ids = [queued(calls, max_queued=1200).id for _ in range(1200)]
    with contextlib.ExitStack() as held:
        waiters = [held.enter_context(listener.waiter(call_id)) for call_id in ids]
        wake(calls, listener, *ids)
        assert all(woken(waiter) for waiter in waiters)


def test_a_wake_that_nobody_waits_for(calls, listener):
    """A message for a call that nobody waits for any more is dropped."""
    wake(calls, listener, "fc-unknown", "fc-unknown")
    settle(listener)
    assert calls.redis.llen(keys.inbox(listener.inbox)) == 0


def test_waiters_cost_no_connection(listener, redis_server):
    """However many requests wait, there is one thread that listens, and no connection more."""
    settle(listener)
    before = len(redis_server.client.client_list()), threading.active_count()
    with contextlib.ExitStack() as held:
        for _ in range(100):
            held.enter_context(listener.waiter(new_id()))
        assert (len(redis_server.client.client_list()), threading.active_count()) == before


def test_the_thread_starts_with_the_first_waiter(redis_server):
    """A listener that nobody needs yet has no thread and no connection: it may be made before a fork."""
    before = threading.active_count()
    made = []
    listener = Listener(lambda: made.append(1) or connect(redis_server.url, connections=1))
    assert (threading.active_count(), made) == (before, [])
    for _ in range(2):
        with listener.waiter("a"):
            until(lambda: made)
    assert (threading.active_count(), made) == (before + 1, [1])


def test_a_thread_that_does_not_start_leaves_no_waiter(redis_server, pair):
    """Where no thread can start nobody waits, nor is watched; the next waiter has one."""
    listener = Listener(partial(connect, redis_server.url, connections=1))
    before = threading.stack_size()
    # More memory than there is: so the system refuses.
    threading.stack_size(1 << 60)
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            listener.waiter("a", {"gunicorn.socket": pair[0]})
    finally:
        threading.stack_size(before)
    assert (listener._waiters, listener._sockets, listener._poll.poll(0)) == ({}, {}, [])
    with pytest.raises(KeyError):
        listener._poll.unregister(pair[0])
    with listener.waiter("a"):
        settle(listener)


def test_a_listener_that_nobody_needs_asks_nothing(own_server, monkeypatch):
    """Without waiters its connection is closed after a while; the next waiter is woken all the same."""
    monkeypatch.setattr(waiting, "_REST_SECONDS", 0.1)
    with fresh_calls(own_server, "resting") as calls:
        listener = Listener(partial(connect, own_server.url + "?db=1", connections=1))
        connections = len(calls.redis.client_list())
        for _ in range(2):
            settle(listener)
            until(lambda: listener.rests)
            assert len(calls.redis.client_list()) == connections
            call = running(calls, inbox=listener.inbox)
            with listener.waiter(call.id) as waiter:
                calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b""))
                assert woken(waiter, 5)


def test_an_outage_ends_the_rest(own_server, monkeypatch):
    """A listener that rests knows that Redis is away when others have told it so."""
    monkeypatch.setattr(waiting, "_REST_SECONDS", 0.1)
    listener = Listener(partial(connect, own_server.url, connections=1))
    settle(listener)
    until(lambda: listener.rests)
    own_server.stop(signal.SIGKILL)
    listener.rouse()
    until(lambda: listener.away)


def test_inboxes_are_random():
    """No two listeners share an inbox."""
    assert len({Listener(lambda: None).inbox for _ in range(100)}) == 100


# -- lost wakes


def ended_unseen(calls):
    return ended(calls).id


def begun_unseen(calls):
    call = running(calls)
    response_stream(calls, call.id, 1).offer(b"begin")
    return call.id


def never_there(calls):
    return new_id()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("what", [ended_unseen, begun_unseen, never_there])
def test_a_lost_wake_is_made_up_for(calls, listener, what):
    """A call that ended, began to answer or vanished without a wake is noticed by a look at its record."""
    with listener.waiter(what(calls)) as waiter:
        assert woken(waiter, 5)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("what", [queued, running])
def test_a_look_wakes_nobody_for_nothing(calls, listener, what):
    """A call that waits or runs on does not wake its waiters, look after look."""
    with listener.waiter(what(calls).id) as waiter:
        assert not woken(waiter, QUIET)


@pytest.mark.usefixtures("often")
def test_who_waits_for_chunks_looks_himself(calls, listener):
    """A lost wake for a chunk is made up for too, though no record shows chunks."""
    with listener.waiter(running(calls).id) as waiter:
        waiter.for_chunks()
        assert woken(waiter, 5)


def test_an_outage_loses_no_wake(own_server, caplog):
    """Waiters outlive a Redis that is killed and comes back, and learn what ended meanwhile."""
    with fresh_calls(own_server, "waiting") as calls:
        listener = Listener(partial(connect, own_server.url + "?db=1", connections=1))
        call = running(calls, inbox=listener.inbox)
        with listener.waiter(call.id) as waiter:
            settle(listener)
            own_server.stop(signal.SIGKILL)
            until(lambda: "Redis is away" in caplog.text)
            waiter.reset()
            own_server.start()
            # No wake: what was pushed to a listener that died with its connection is gone.
            calls.redis.hdel(keys.call(call.id), "inboxes")
            calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b""))
            assert woken(waiter, 5)
        assert caplog.text.count("Redis is away") == 1
        with listener.waiter("again") as waiter:
            settle(listener)


def test_nonsense_in_the_inbox(calls, listener, caplog):
    """A message that is no call's id ends nothing: waiters are woken as before."""
    call = running(calls)
    with listener.waiter(call.id) as waiter:
        for _ in range(2):
            wake(calls, listener, b"\xff")
            until(lambda: not calls.redis.exists(keys.inbox(listener.inbox)), what="its end")
        wake(calls, listener, call.id)
        assert woken(waiter, 5)
    assert "unexpected" not in caplog.text


def test_a_server_without_blmpop(calls, listener):
    """Redis before 7 has its inbox popped by older commands, all messages at once."""

    class Redis62(Commands):
        def send(self, *words):
            return b"redis_version:6.2.0" if words[0] == "INFO" else super().send(*words)

    pop = waiting._popper(Redis62(calls.redis), "wt:inbox:old")
    calls.redis.rpush("wt:inbox:old", "a", "b", "c")
    assert pop() == [b"a", b"b", b"c"]
    assert pop() == []
    calls.redis.rpush("wt:inbox:old", "alone")
    assert pop() == [b"alone"]


def test_who_is_woken_after_an_outage_may_look(own_server, monkeypatch):
    """When Redis is back, it is not said to be away any more to those who are woken for it."""
    said = []
    plain = waiting.Waiter.wake
    monkeypatch.setattr(waiting.Waiter, "wake", lambda waiter: (said.append(listener.away), plain(waiter)))
    with fresh_calls(own_server, "waiting") as calls:
        listener = Listener(partial(connect, own_server.url + "?db=1", connections=1))
        call = running(calls)
        with listener.waiter(call.id) as waiter:
            settle(listener)
            own_server.stop(signal.SIGKILL)
            until(lambda: listener.away)
            waiter.reset()
            said.clear()
            own_server.start()
            calls.attempts.finish(Attempt(call.id, 1, W1), Outcome.DONE, 600, response=(HEAD, b""))
            assert woken(waiter, 5)
    assert said
    assert not any(said)


# -- clients that go


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("key", ["gunicorn.socket", "gunicorn.sock", "werkzeug.socket"])
def test_a_client_that_closes_is_noticed(listener, pair, key):
    """Who waits for a client that has gone is woken within a second, and told so."""
    ours, theirs = pair
    with listener.waiter("a", {key: ours}) as waiter:
        theirs.close()
        until(lambda: waiter.gone, SOON)
        assert woken(waiter)


def test_a_client_that_stays_is_left_alone(listener, pair):
    """A client that sends more, as a pipelined request, has not gone when another has."""
    ours, theirs = pair
    other_ours, other_theirs = socket.socketpair()
    with (
        other_ours,
        other_theirs,
        listener.waiter("b", {"gunicorn.socket": ours}) as staying,
        listener.waiter("b", {"gunicorn.socket": other_ours}) as leaving,
    ):
        theirs.sendall(b"GET / HTTP/1.1\r\n")
        other_theirs.close()
        until(lambda: leaving.gone, SOON)
        assert not staying.gone


def test_a_socket_is_watched_while_it_is_waited_for(listener, pair):
    """After the wait nothing of a waiter is kept, and its socket may be used by another."""
    ours, theirs = pair
    environ = {"gunicorn.socket": ours}
    with listener.waiter("d", environ) as first:
        pass
    with listener.waiter("d", environ) as second:
        theirs.close()
        until(lambda: second.gone, SOON)
    assert not first.gone
    assert (listener._waiters, listener._sockets) == ({}, {})


@pytest.mark.parametrize("environ", [None, {}, {"gunicorn.socket": None}, {"gunicorn.socket": "no socket"}])
def test_a_server_that_shows_no_socket(listener, environ):
    """Without a client's socket in the environ there is a wait all the same."""
    with listener.waiter("e", environ) as waiter:
        assert waiter.gone is False
    assert listener._sockets == {}


# -- a stop


def test_draining_wakes_everybody(calls, redis_server, monkeypatch):
    """A process that was told to stop wakes all waiters, and those that come then, within a second."""
    monkeypatch.setattr(waiting._Process, "draining", False)
    listeners = [Listener(partial(connect, redis_server.url + "?db=1", connections=1)) for _ in range(2)]
    call = running(calls)
    with contextlib.ExitStack() as held:
        waiters = [held.enter_context(listener.waiter(call.id)) for listener in listeners]
        assert not any(listener.draining for listener in listeners)
        for waiter in waiters:
            waiter.reset()
        drain()
        assert all(listener.draining for listener in listeners)
        assert all(woken(waiter, SOON + 1) for waiter in waiters)
    late = Listener(partial(connect, redis_server.url + "?db=1", connections=1))
    with late.waiter(call.id) as waiter:
        assert late.draining
        assert woken(waiter, SOON + 1)
