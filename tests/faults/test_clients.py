"""Clients that leave: while they wait, at any point of a download; that stop reading, or read very slowly."""

import hashlib
import http.client
import socket
import time
from array import array
from pathlib import Path

import pytest
from harness import APPS, Gunicorn, ask, follow, until

MIB = 1024 * 1024
#: Ten pieces of what the handler yields at a time.
BODY = array("Q", range(125_000)).tobytes()
#: What no socket's buffer takes.
HUGE = 40 * MIB
BUFFER, UNREAD = MIB, 3.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        pool=("--processes", "1", "--threads", "4"),
        gateway=f"buffer={BUFFER}, max_spooled_body={BUFFER}, max_result={BUFFER}",
        wait_seconds=30,
        worker_wait=20,
    )


@pytest.fixture(scope="module")
def later(site):
    """A web process that answers 202."""
    web = site.start_web(gateway="wait_for_response=False")
    yield web
    web.stop()


@pytest.fixture(scope="module")
def alone(site):
    """A web process in which one request at a time may wait."""
    app = f"wsgi_timeout:gateway({site.target!r}, name={site.name!r}, max_waiting=1, unread_timeout={UNREAD})"
    web = Gunicorn(app, site.redis.url, env=site.env, cwd=APPS)
    yield web
    web.stop()


def begin(port, target, *, receive=0):
    """Send a GET and return its connection; with so small a buffer to receive."""
    sock = socket.socket()
    sock.settimeout(20)
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.connect(("127.0.0.1", port))
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return sock


def reset(sock):
    """Close a connection as a client that was killed does, whatever it has not read."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@pytest.mark.parametrize("leave", [socket.socket.close, reset])
def test_a_client_that_leaves_while_it_waits(site, gate, seen, leave):
    """A client that leaves frees its place within a second; its call goes on to its end, and ran once."""
    tag = f"leaves-{leave.__name__}"
    left = site.web.output.count(" 499 ")
    sock = begin(site.web.port, f"/guarded?tag={tag}&file={gate}")
    until(lambda: site.runs(tag), what="its begin")
    leave(sock)
    at = time.monotonic()
    until(lambda: site.web.output.count(" 499 ") > left, what="the end of its request")
    took = time.monotonic() - at
    seen("until its place was free", [took])
    assert took < 2
    assert not site.runs(f"{tag}-finally")
    gate.touch()
    until(lambda: site.runs(f"{tag}-finally"), what="its handler's end")
    assert len(site.runs(tag)) == 1


PIECE = 100_000
CUTS = [0, 1, *(PIECE * n for n in range(1, 10)), 2 * PIECE + 1, len(BODY) - 1]


@pytest.mark.parametrize("cut", CUTS)
def test_a_download_that_is_left_at_any_point(site, later, seen, cut):
    """A client that leaves after so many bytes of a result gets all of it, the same, the next time."""
    tag = f"cut{cut}"
    url = ask(later.port, f"/numbers?tag={tag}&size={len(BODY)}").json["result_url"]
    sock = begin(site.web.port, url, receive=4096)
    assert read_head(sock).startswith(b"HTTP/1.1 200 OK")
    left = cut
    while left:
        left -= len(sock.recv(min(65536, left)))
    reset(sock)
    gone = time.monotonic()
    again = follow(site.web.port, url)[-1]
    seen("the whole body", [time.monotonic() - gone])
    assert (again.status, again.body == BODY) == (200, True)
    assert len(site.runs(tag)) == 1


def read_head(sock):
    """Return a response's head, and read no byte of its body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    return head


def is_served(web, sock):
    """Whether the web server has a client's connection open."""
    port = sock.getsockname()[1]
    open_here = (each for worker in web.workers() for each in worker.net_connections("tcp"))
    return any(each.raddr and each.raddr.port == port for each in open_here)


def test_a_client_that_never_reads_is_left(site, alone, later, seen):
    """A client that stops reading its response loses its connection; its place is free, its body is kept."""
    port = alone.port
    urls = ask(later.port, f"/numbers?tag=unread&size={HUGE}").json
    until(lambda: ask(later.port, urls["status_url"]).json["state"] == "ended", what="the whole body")
    url = urls["result_url"]
    sock = begin(port, url, receive=4096)
    read_head(sock)
    at = time.monotonic()
    assert is_served(alone, sock)
    assert ask(port, "/fast").status == 200
    until(lambda: not is_served(alone, sock), UNREAD + 10, "the end of its connection")
    took = time.monotonic() - at
    seen(f"until it was left, with unread_timeout {UNREAD:g} s", [took])
    assert UNREAD - 1 < took < UNREAD + 5
    assert rest(sock) < HUGE
    again = follow(site.web.port, url)[-1]
    assert (again.status, len(again.body)) == (200, HUGE)
    assert len(site.runs("unread")) == 1


def rest(sock):
    """Return how many bytes still come on a connection until it ends."""
    count = 0
    try:
        while piece := sock.recv(MIB):
            count += len(piece)
    except ConnectionResetError:
        pass
    sock.close()
    return count


def test_a_client_may_be_given_any_time_to_read(site):
    """An `unread_timeout` that is longer than the system can count to is as good as none."""
    web = site.start_web(gateway="unread_timeout=1e9")
    try:
        assert ask(web.port, "/fast").status == 200
    finally:
        web.stop()


def test_a_slow_reader_gets_all_and_costs_little(site, seen):
    """At 1 KB a second a response of 40 MiB keeps its bounds in Redis and both processes; it comes whole."""
    assert ask(site.web.port, "/fast").status == 200  # gunicorn has forked
    (web,), (worker,), client = site.web.workers(), site.pool.workers(), site.redis.client

    def held():
        return client.info("memory")["used_memory"], web.memory_info().rss, worker.memory_info().rss

    before = held()
    sock = begin(site.web.port, f"/numbers?tag=slow&size={HUGE}", receive=65536)
    with http.client.HTTPResponse(sock) as response:
        response.begin()
        digest, most = hashlib.sha256(), [0, 0, 0]
        began = time.monotonic()
        for second in range(6):
            digest.update(response.read(1024))
            most = [max(pair) for pair in zip(most, held(), strict=True)]
            until(lambda second=second: time.monotonic() - began > second + 1)
        hurried = time.monotonic()
        while piece := response.read(MIB):
            digest.update(piece)
        seen("the rest, when it reads on", [time.monotonic() - hurried])
    sock.close()
    assert digest.digest() == hashlib.sha256(array("Q", range(HUGE // 8)).tobytes()).digest()
    redis, web_rss, worker_rss = (after - at for after, at in zip(most, before, strict=True))
    assert redis < 2 * BUFFER + MIB
    assert max(web_rss, worker_rss) < 16 * MIB
    assert len(site.runs("slow")) == 1


#: More than the sockets between take, and `max_result`.
LARGE = 8 * MIB


def begin_large(port, tag, size):
    """Ask for a response, and read its head."""
    with begin(port, f"/numbers?tag={tag}&size={size}", receive=4096) as sock:
        response = http.client.HTTPResponse(sock)
    response.begin()
    assert response.status == 200
    return response


def is_whole(response, size):
    with response:
        return response.read() == array("Q", range(size // 8)).tobytes()


def test_readers_who_take_nothing_hold_no_worker(site):
    """With `max_response_file` nobody who does not read holds one of four threads, over `max_result` too."""
    web = site.start_web(gateway=f"buffer={BUFFER}, max_result={BUFFER}, max_response_file={64 * MIB}")
    try:
        responses = [begin_large(web.port, "held", LARGE) for _ in range(4)]
        until(lambda: not site.redis.client.zcard(f"rq:wip:wt:{site.name}"), what="the end of the handlers")
        assert all(is_whole(response, LARGE) for response in responses)
    finally:
        web.stop()


def test_a_full_file_leaves_a_response_at_its_readers_pace(site):
    """A response over `max_response_file` comes whole: what the file did not take is read from Redis."""
    web = site.start_web(gateway=f"buffer={BUFFER}, max_result={BUFFER}, max_response_file={3 * MIB}")
    try:
        response = begin_large(web.port, "full", 2 * LARGE)
        until(lambda: spooled(web) > MIB, what="a file")
        assert is_whole(response, 2 * LARGE)
        until(lambda: spooled(web) < MIB, what="the end of the file")
    finally:
        web.stop()


def spooled(web):
    """Return the bytes of the files without names that a web process has open; its log is one."""
    files = [link for link in Path(f"/proc/{web.workers()[0].pid}/fd").iterdir() if is_nameless(link)]
    return sum(link.stat().st_size for link in files)


def is_nameless(link):
    try:
        return "/tmp/" in str(link.readlink()) and str(link.readlink()).endswith("(deleted)")
    except FileNotFoundError:
        return False
