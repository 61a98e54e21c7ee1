"""Uploads that end early, stall, or take longer than their handler may: none ever looks whole."""

import hashlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import ask, until
from uploader import BUFFER, CHUNKED, MIB, Uploader, content

CUTS = {
    "Content-Length": (f"Content-Length: {3 * MIB}", lambda data: data),
    "chunked, between chunks": (CHUNKED, lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
    "chunked, within a chunk": (CHUNKED, lambda data: b"%x\r\n%b" % (len(data) + 10, data)),
}

pytestmark = pytest.mark.usefixtures("nothing_is_left")


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


@pytest.mark.parametrize("cut", CUTS)
def test_an_upload_that_is_cut_short_starts_nothing(site, roomy, seen, cut):
    """An upload that ends early, and fits the buffer, is refused, and its handler never begins."""
    header, encode = CUTS[cut]
    tag = f"cut-{list(CUTS).index(cut)}"
    client = Uploader(roomy, f"/hash?tag={tag}", header)
    client.send(encode(content(MIB)))
    client.stop_sending()
    cut_at = time.monotonic()
    answer = client.answer()
    seen("the end of its connection", [time.monotonic() - cut_at])
    assert answer[:12] in {b"HTTP/1.1 400", b""}
    # There is one worker, which takes calls in their order.
    assert ask(roomy, f"/fast?tag={tag}-after").status == 200
    assert len(site.runs(f"{tag}-after")) == 1
    assert not site.runs(tag)


def test_a_small_upload_that_is_cut_short_starts_nothing(site, port):
    """A body that would have travelled with its call is counted, too."""
    client = Uploader(port, "/hash?tag=small-cut", "Content-Length: 1000")
    client.send(bytes(999))
    client.stop_sending()
    assert client.answer().startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert ask(port, "/fast?tag=small-after").status == 200
    assert not site.runs("small-cut")


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("cut", CUTS)
def test_an_upload_that_is_cut_short_never_looks_complete(site, port, seen, cut, how):
    """A handler that reads an upload over the buffer gets an error where the upload ends early."""
    header, encode = CUTS[cut]
    tag = f"broken-{list(CUTS).index(cut)}-{how}"
    client = Uploader(port, f"/hash?tag={tag}", header)
    client.send(encode(content(2 * MIB)))
    until(lambda: site.runs(tag), what="the handler's begin")
    cut_at = time.monotonic()
    if how == "FIN":
        client.stop_sending()
        assert b" 200 " not in client.answer()
    else:
        client.reset()
    # There is one worker: it goes on when that handler has ended.
    assert ask(port, "/fast").status == 200
    seen("until its worker served the next", [time.monotonic() - cut_at])
    assert len(site.runs(tag)) == 1
    assert not site.runs(f"{tag}-whole")


@pytest.fixture(scope="module")
def impatient(site):
    """A web process in which a client may pause for 0.4 s."""
    web = site.start_web(gateway="upload_timeout=0.4")
    yield web.port
    web.stop()


@pytest.mark.parametrize(
    "sent", [0, 10, 100_000, 3 * MIB], ids=["nothing", "small", "queued later", "queued"]
)
@pytest.mark.parametrize("header", [f"Content-Length: {8 * MIB}", CHUNKED])
def test_a_client_that_stalls_is_told(impatient, site, seen, sent, header):
    """A client that pauses within its body gets a 408, and no handler sees a whole body."""
    tag = f"stalled-{sent}-{len(header)}"
    client = Uploader(impatient, f"/hash?tag={tag}", header)
    data = content(sent)
    began = time.monotonic()
    client.send(b"%x\r\n%b\r\n" % (sent, data) if header == CHUNKED and sent else data)
    assert client.answer().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    took = time.monotonic() - began
    seen("over its upload_timeout of 0.4 s", [took - 0.4])
    assert 0.3 < took < 5
    assert not [run for run in site.runs() if run.startswith(f"{tag}-whole")]


@pytest.mark.parametrize("header", ["Content-Length: 10", CHUNKED])
def test_a_body_sent_to_a_made_up_result_url_is_not_read(impatient, header):
    """A token is looked at before the body that comes along: nobody holds a thread without one."""
    client = Uploader(impatient, "/hash?__wsgi_timeout_call=fc-any.token", header)
    client.send(b"2\r\nxx\r\n" if header == CHUNKED else b"xx")
    assert client.answer().startswith(b"HTTP/1.1 404 Not Found\r\n")


@pytest.mark.parametrize("header", ["Content-Length: 10", CHUNKED])
def test_a_client_that_stalls_on_a_result_url_is_told(site, impatient, header, gate):
    """What comes along with a hop, as from `curl -X POST -L`, is waited for no longer than an upload."""
    web = site.start_web(gateway="wait_seconds=0.3")
    location = ask(web.port, f"/slow?file={gate}").location
    web.stop()
    client = Uploader(impatient, location, header)
    client.send(b"2\r\nxx\r\n" if header == CHUNKED else b"xx")
    began = time.monotonic()
    assert client.answer().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert time.monotonic() - began < 5


def test_a_client_that_is_slow_is_not_cut(site):
    """A client that sends a little at a time has all the time that it needs, longer than it may pause."""
    web = site.start_web(gateway="upload_timeout=2")
    try:
        client = Uploader(web.port, "/hash", "Content-Length: 6")
        for _ in range(6):
            client.send(b"x")
            time.sleep(0.5)
        assert client.answer().startswith(b"HTTP/1.1 200 OK\r\n")
    finally:
        web.stop()


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_an_upload_that_takes_longer_than_chunks_live_is_whole(site, roomy, seen):
    """A client that needs more than a minute for what comes after the first chunk loses nothing."""
    body = content(300_000)
    head = (
        f"POST /hash?tag=slow-client HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    )
    with socket.create_connection(("127.0.0.1", roomy), timeout=20) as sock:
        # Over the least rate that a client must keep.
        sock.sendall(head.encode() + b"\r\n\r\n" + body[:-70_000])
        for start in range(len(body) - 70_000, len(body), 7_000):
            time.sleep(7)
            sock.sendall(body[start : start + 7_000])
        sent = time.monotonic()
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
        seen("the response, after its last byte", [time.monotonic() - sent])
    assert hashlib.sha256(body).hexdigest().encode() in answer
    assert len(site.runs("slow-client-whole")) == 1


def test_an_upload_that_outlasts_its_deadline_ends(site, seen):
    """A handler's time is up though its client still sends: its worker is free, and the client gets a 504."""
    web = site.start_web(gateway="timeout=0.5")
    try:
        client = Uploader(web.port, "/hash?tag=outlasts", f"Content-Length: {3 * MIB}")
        client.send(bytes(2 * MIB))
        until(lambda: site.runs("outlasts"), what="the handler's begin")
        began = time.monotonic()
        with ThreadPoolExecutor(1) as thread:
            other = thread.submit(ask, web.port, "/fast")
            # It has not ended: each piece is taken.
            until(lambda: client.send(b"x") and other.done(), 10, "the next call's answer")
        assert other.result().status == 200
        took = time.monotonic() - began
        seen("until its worker served the next, after its deadline", [took - 0.5])
        assert took < 0.5 + 5
        assert client.sent < 3 * MIB
        client.send(bytes(3 * MIB - client.sent))
        sent = time.monotonic()
        answer = client.answer()
        seen("the 504, after its last byte", [time.monotonic() - sent])
        assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
        assert (len(site.runs("outlasts")), site.runs("outlasts-whole")) == (1, [])
    finally:
        web.stop()


@pytest.mark.parametrize("size", [b"zz", b"-1", b""])
def test_a_chunk_without_a_size_is_no_chunk(site, port, size):
    """A chunked body whose next size cannot be read gets an error, and no handler sees a whole body."""
    tag = f"bad-{size.decode()}"
    client = Uploader(port, f"/hash?tag={tag}", CHUNKED)
    client.send(b"5\r\nhello\r\n" + size + b"\r\nrest\r\n0\r\n\r\n")
    assert client.answer()[:12] in {b"HTTP/1.1 400", b""}
    assert ask(port, "/fast").status == 200
    assert not site.runs(f"{tag}-whole")
