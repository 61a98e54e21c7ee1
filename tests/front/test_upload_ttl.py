"""What keeps the chunks of slow uploads until their call is queued."""

import threading

import pytest
from harness import until

from wsgi_timeout.front import upload_ttl
from wsgi_timeout.front.upload_ttl import UploadKeeper
from wsgi_timeout.store import keys
from wsgi_timeout.store.connection import Commands, Scripts, connect


@pytest.fixture
def kept(redis_server, monkeypatch):
    monkeypatch.setattr(upload_ttl, "_PAUSE_SECONDS", 0.05)
    return UploadKeeper(Scripts(Commands(connect(redis_server.url, connections=1)).send))


def renewing():
    return [thread for thread in threading.enumerate() if thread.name == "wsgi-timeout-uploads"]


def test_a_stream_is_kept_while_it_is_held(redis_server, kept):
    """A stream's TTL is renewed while it is held, and not after; the thread that does it ends."""
    client, key = redis_server.client, keys.request_body("fc-held")
    client.hset(key, "count", 1)
    with kept.hold(key):
        for _ in range(2):
            client.expire(key, 5)
            until(lambda: client.ttl(key) > 50, what="the renewal")
    until(lambda: not renewing(), what="the end of the thread")
    client.expire(key, 5)
    with kept.hold(keys.request_body("fc-other")):
        assert len(renewing()) == 1
    until(lambda: not renewing(), what="the end of the thread")
    assert client.ttl(key) <= 5
    client.delete(key)


def test_what_lives_longer_is_left_alone(redis_server, kept):
    """A stream whose call was queued meanwhile lives as long as that; one that is gone does not come back."""
    client, key = redis_server.client, keys.request_body("fc-queued")
    client.hset(key, "count", 1)
    client.expire(key, 3600)
    other = keys.request_body("fc-short")
    client.hset(other, "count", 1)
    client.expire(other, 5)
    with kept.hold(key), kept.hold(other), kept.hold(keys.request_body("fc-gone")):
        until(lambda: client.ttl(other) > 50, what="a renewal")
    assert client.ttl(key) > 3000
    assert not client.exists(keys.request_body("fc-gone"))
    client.delete(key, other)


@pytest.fixture
def no_threads():
    """Return a function that lets the system refuse a new thread, by the memory that its stack would take."""
    before = threading.stack_size()
    yield lambda: threading.stack_size(1 << 60)
    threading.stack_size(before)


def test_a_thread_that_does_not_start_ends_nobodys_keeping(redis_server, kept, no_threads, caplog):
    """An upload goes on without the thread; with the next one it starts, and keeps both."""
    client, first, second = redis_server.client, keys.request_body("fc-first"), keys.request_body("fc-second")
    for key in (first, second):
        client.hset(key, "count", 1)
        client.expire(key, 5)
    before = no_threads()
    with kept.hold(first):
        assert "can't start new thread" in caplog.text
        threading.stack_size(before)
        with kept.hold(second):
            until(lambda: min(client.ttl(first), client.ttl(second)) > 50, what="the renewal of both")
    until(lambda: not renewing(), what="the end of the thread")
    client.delete(first, second)


def test_a_surprise_ends_nobodys_keeping(redis_server, kept, caplog):
    """What nobody expected is logged once, and the thread goes on."""
    client, key = redis_server.client, keys.request_body("fc-held")
    client.hset(key, "count", 1)
    client.expire(key, 5)
    with kept.hold("no UTF-8: \udc80"):
        until(lambda: "UnicodeEncodeError" in caplog.text, what="the surprise")
    with kept.hold(key):
        until(lambda: client.ttl(key) > 50, what="the renewal")
    until(lambda: not renewing(), what="the end of the thread")
    assert caplog.text.count("Traceback") == 1
    client.delete(key)
