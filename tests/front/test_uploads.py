"""Request bodies: of every size whole, with bounded memory, and never short without a word."""

import hashlib
import threading
import time

import pytest
from harness import ask, follow, nameless_bytes, until
from uploader import BUFFER, MIB, Uploader, content, pieces


@pytest.fixture(scope="module")
def site(deploy):
    """A deployment whose buffer is small; its web process waits longer than any upload here takes."""
    return deploy(pool=("--processes", "1"), buffer=BUFFER, wait_seconds=40)


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


@pytest.fixture(scope="module")
def roomy(site):
    """A web process on the same name whose buffer holds every body of these tests."""
    web = site.start_web(gateway=f"buffer={64 * MIB}")
    yield web.port
    web.stop()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000, 40_000_000])
def test_a_body_reaches_the_handler_whole(port, size, chunked):
    """A body of any size, its length announced or not, arrives byte for byte, also far over the buffer."""
    data = content(size)
    answer = ask(port, "/hash", "POST", body=pieces(data) if chunked else data)
    assert answer.json == {"length": size, "sha256": hashlib.sha256(data).hexdigest()}


def test_a_body_without_a_length_is_none(port):
    """A POST with neither length nor chunks has an empty body."""
    client = Uploader(port, "/hash")
    assert b'"length":0' in client.answer()


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 3_000_000])
def test_a_body_within_the_buffer_is_whole_before_the_handler_begins(roomy, size):
    """A body that fits the buffer arrives whole, too, when its handler begins after it is in."""
    data = content(size)
    answer = ask(roomy, "/hash", "POST", body=data)
    assert answer.json == {"length": size, "sha256": hashlib.sha256(data).hexdigest()}


def test_an_upload_ahead_of_its_handler_is_bounded(site, port, gate):
    """While a handler does not read on, no more than the buffer lies in Redis, and the uploader waits."""
    data = content(40_000_000)
    assert ask(port, "/fast").status == 200  # gunicorn has forked
    (web,) = site.web.workers()
    before = web.memory_info().rss
    client = Uploader(port, f"/hash?file={gate}&tag=ahead", f"Content-Length: {len(data)}")
    sender = threading.Thread(target=client.send, args=(data,))
    sender.start()
    try:
        until(lambda: site.runs("ahead"), what="the handler's begin")
        (key,) = site.redis.client.scan_iter(match="wt:in:*", count=1000)
        kept = [int(site.redis.client.hget(key, "kept")) for _ in range(100)]
        assert BUFFER / 2 < max(kept) <= BUFFER
        assert site.redis.client.memory_usage(key, samples=0) < 2 * BUFFER
        assert sender.is_alive()
        assert web.memory_info().rss - before < 20 * MIB
    finally:
        gate.touch()
        sender.join()
    assert hashlib.sha256(data).hexdigest().encode() in client.answer()
    until(lambda: not site.redis.client.exists(key), what="the end of the body's key")


def test_a_handler_that_does_not_read_frees_the_uploader(site, port):
    """A handler that answers before it has read a large body answers at once; the rest is not taken."""
    ask(port, "/fast")
    # The best of three: the machine may have been busy with something else.
    for number in range(3):
        tag = f"unread{number}"
        began = time.monotonic()
        client = Uploader(port, f"/fast?tag={tag}", "Content-Length: 40000000")
        client.send(bytes(40_000_000))
        assert client.sent < 20_000_000
        assert client.answer().endswith(f"fast {tag}\n".encode())
        took = time.monotonic() - began
        assert len(site.runs(tag)) == 1
        # A wake that went astray would cost two seconds.
        if took < 1.5:
            break
    assert took < 1.5


def test_a_handler_that_answers_while_it_reads_gets_all(port):
    """A handler that yields before it has read all still reads the body to its end."""
    data = content(8_000_000)
    assert ask(port, "/mirror", "POST", body=data).body == data


def test_an_upload_is_accepted_without_wait(site, port, gate):
    """With `wait_for_response=False` the 202 comes when the body is in, and the handler finds it whole."""
    web = site.start_web(gateway="wait_for_response=False")
    data = content(3_000_000)
    try:
        answer = ask(web.port, "/hash", "POST", body=data)
        assert answer.status == 202
        last = follow(port, answer.location)[-1]
        assert last.json == {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    finally:
        web.stop()


@pytest.fixture(scope="module")
def filing(site):
    """A web process on the same name that takes more than the buffer into a file before a call begins."""
    web = site.start_web(gateway=f"max_request_file={4 * MIB}")
    yield web
    web.stop()


def test_with_a_file_a_slow_upload_holds_no_worker(filing):
    """With `max_request_file` a call with a large body begins when that is in; others are served before."""
    data = content(3 * MIB)
    clients = [Uploader(filing.port, "/hash", f"Content-Length: {len(data)}") for _ in range(2)]
    for client in clients:
        client.send(data[:-1])
    assert ask(filing.port, "/fast").status == 200
    for client in clients:
        client.send(data[-1:])
        assert hashlib.sha256(data).hexdigest().encode() in client.answer()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_larger_than_its_file_arrives_whole(filing, chunked):
    """What `max_request_file` does not take in is read by the handler as it comes."""
    data = content(8_000_000)
    answer = ask(filing.port, "/hash", "POST", body=pieces(data) if chunked else data)
    assert answer.json == {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_an_upload_that_breaks_off_in_its_file_runs_nothing(site, filing):
    """A client that leaves before its body is in the file has started no handler, and its file is gone."""
    client = Uploader(filing.port, "/hash?tag=broken-in-file", f"Content-Length: {3 * MIB}")
    client.send(bytes(2 * MIB))
    until(lambda: nameless_bytes(filing), what="a file")
    client.reset()
    until(lambda: not nameless_bytes(filing), what="the end of the file")
    assert ask(filing.port, "/fast").status == 200
    assert not site.runs("broken-in-file")
