"""Uploads that are on their way to a running handler when Redis goes away."""

import time

import pytest
from harness import until
from uploader import CHUNKED, Uploader

from wsgi_timeout.store import keys
from wsgi_timeout.store.streams import CHUNK

#: What is sent while Redis is there. The handler begins to read, since the second chunk does not fit the
#: buffer; the rest makes no whole chunk.
BEFORE = bytes(2 * CHUNK + 50_000)
LIMIT = len(BEFORE) + 20_000
TIMEOUT = 3.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(proxy, deploy):
    sizes = {"buffer": CHUNK + 50_000, "max_spooled_body": 1, "max_request_body": LIMIT}
    return deploy(server=proxy, pool=("--processes", "1"), timeout=TIMEOUT, **sizes)


@pytest.fixture
def upload(site, proxy):
    """Return a function that begins an upload, and takes Redis away once its handler reads it."""

    clients = []

    def begin(tag, *headers):
        before = set(site.redis.client.scan_iter(keys.request_body("*")))
        client = Uploader(site.web.port, f"/hash?tag={tag}", *headers)
        clients.append(client)
        chunked = CHUNKED in headers
        client.send(b"%x\r\n%b\r\n" % (len(BEFORE), BEFORE) if chunked else BEFORE)

        def stored():
            streams = set(site.redis.client.scan_iter(keys.request_body("*"))) - before
            return [key for key in streams if site.redis.client.hget(key, "count") == b"2"]

        until(stored, what="the body's first chunks")
        proxy.refuse()
        return client

    yield begin
    proxy.heal()
    for client in clients:
        client.sock.close()


def test_a_body_over_the_limit_is_413_also_while_redis_is_away(upload):
    """A body that grows over `max_request_body` is refused as such, though its call cannot be cancelled."""
    client = upload("large", CHUNKED)
    more = bytes(LIMIT - len(BEFORE) + 1)
    client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(more), more))
    assert client.answer().startswith(b"HTTP/1.1 413 ")


def test_an_upload_that_redis_does_not_take_has_a_deadline(upload):
    """When Redis takes the rest of a body no more the client is redirected once the handler's time is up."""
    began = time.monotonic()
    client = upload("rest", f"Content-Length: {LIMIT}")
    client.send(bytes(LIMIT - len(BEFORE)))
    assert client.answer().startswith(b"HTTP/1.1 303 ")
    assert time.monotonic() - began > TIMEOUT
