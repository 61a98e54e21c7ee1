"""Small decisions of the front, without a server."""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from call_steps import fresh_calls

from wsgi_timeout.front import status_url, web_server
from wsgi_timeout.front.idempotency import Key
from wsgi_timeout.front.large_body import LargeBody, _before_its_call
from wsgi_timeout.front.web_server_limits import wait_limit
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys


def shown(**found):
    """Return what the status URL shows of a call, and its headers."""
    calls = SimpleNamespace(status=lambda _id: found)
    started = []
    body = status_url.show(calls, "fc-1", "/result", lambda _status, headers: started.append(headers))
    return json.loads(b"".join(body)), dict(started[0])


@pytest.mark.parametrize(
    ("found", "ready", "ended"),
    [
        ({"state": "queued"}, False, False),
        ({"state": "running"}, False, False),
        ({"state": "running", "answering": True}, True, False),
        ({"state": "ended"}, True, True),
    ],
)
def test_a_status_says_when_a_result_can_be_fetched(found, ready, ended):
    """A result is ready from the first byte of its response on; until the end the status says when to ask."""
    body, headers = shown(**found)
    assert body["ready"] is ready
    assert ("Retry-After" in headers) is not ended


@pytest.mark.parametrize(("length", "bytes_before"), [(None, 1000), (999, 1000), (1000, 1000), (1001, 100)])
def test_how_much_of_a_body_comes_before_its_call(length, bytes_before):
    """A body of up to `max_spooled_body` is stored whole before its call; of a larger one, a buffer full."""
    settings = Settings(buffer=100, max_spooled_body=1000)
    assert _before_its_call(SimpleNamespace(length=length), settings) == bytes_before


def test_until_when_a_body_is_wanted():
    """A body is wanted until its handler answers; from then on, for as long as the handler reads it too."""
    snapshot = SimpleNamespace(ended=False, state="running", head=None)
    writer = SimpleNamespace(has_reader=False)
    waiter = SimpleNamespace(gone=False, wait=lambda _: None, reset=lambda: None, wake=lambda: None)
    body = SimpleNamespace(
        _waiter=waiter,
        _runtime=SimpleNamespace(calls=SimpleNamespace(look=lambda _id: snapshot)),
        _call_id="fc-1",
        _answering=False,
        _writer=writer,
    )
    assert LargeBody._wait_for_room(body)
    assert LargeBody._wait_for_room(body)
    snapshot.head = "200 OK"
    assert LargeBody._wait_for_room(body)
    assert not LargeBody._wait_for_room(body)
    writer.has_reader = True
    assert LargeBody._wait_for_room(body)
    snapshot.ended = True
    assert not LargeBody._wait_for_room(body)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({"socket": b":3031"}, float("inf")),
        ({"http": b":8000"}, 50),
        ({"https": b":8443", "http-timeout": b"30"}, 20),
        ({"http": b":8000", "http-timeout": b"300", "harakiri": b"40"}, 30),
        ({"harakiri": b"10"}, 5),
    ],
)
def test_how_long_a_request_may_wait_under_uwsgi(monkeypatch, options, seconds):
    """Of uWSGI's shorter limit, what a request needs besides is left; but half of it may be waited."""
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=options))
    assert wait_limit(150) == seconds


def test_a_claimed_key_outlives_its_call(redis_server):
    """An idempotency key is kept for as long as its call may wait, run again, and be kept."""
    with fresh_calls(redis_server, "keys") as calls:
        settings = Settings(max_attempts=2, queue_ttl=1000, timeout=100, result_ttl=50)
        uploads = SimpleNamespace(hold=lambda _key: nullcontext())
        pending = SimpleNamespace(call_id="fc-1", token="token", path="/")
        exchange = SimpleNamespace(runtime=SimpleNamespace(calls=calls, uploads=uploads), settings=settings)
        key = Key(exchange, b"key", pending)
        with key.held(SimpleNamespace(digest=b"digest")):
            calls.redis.hset(keys.claim(calls.name, key.key.hex()), "call", "fc-1")
        assert 2 * (1000 + 100) < calls.redis.ttl(keys.claim(calls.name, key.key.hex())) <= 2250


def test_a_server_that_is_not_imported_is_not_ours(monkeypatch):
    """a2wsgi is taken for the server only where it was imported."""
    monkeypatch.delitem(sys.modules, "a2wsgi.wsgi", raising=False)
    assert web_server._a2wsgi() is None


def test_the_threads_of_granian_are_found_on_the_stack(monkeypatch):
    """A variable in a frame of its main thread says how many; where it was not imported nobody looks."""
    begun, over = threading.Event(), threading.Event()

    def serve(blocking_threads):
        begun.set()
        over.wait(30)
        return blocking_threads

    with ThreadPoolExecutor(1) as threads:
        main = threads.submit(serve, 5)
        try:
            assert begun.wait(30)
            monkeypatch.setitem(sys.modules, "granian", SimpleNamespace())
            assert web_server._granian().threads == 5
            monkeypatch.delitem(sys.modules, "granian")
            assert web_server._granian() is None
        finally:
            over.set()
    assert main.result() == 5


def test_the_threads_of_a2wsgi_are_found_on_the_stack(monkeypatch):
    """The object that serves is the one with an executor, whatever methods of others it has called."""

    class Called:
        def find(self):
            return web_server._a2wsgi()

    class Serving:
        executor = SimpleNamespace(_max_workers=7)

        def serve(self, called):
            return called.find()

    monkeypatch.setitem(sys.modules, "a2wsgi.wsgi", SimpleNamespace())
    assert Serving().serve(Called()).threads == 7
