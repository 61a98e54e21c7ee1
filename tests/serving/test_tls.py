"""TLS in gunicorn itself: clients that do not go on, in the handshake or after it, hold no thread."""

import http.client
import socket
import ssl
import time

import pytest
from certificates import self_signed

#: More than there are threads.
CROWD = 100
MAX_WAITING = 8
HELLO = b"\x16\x03\x01\x02\x00\x01\x00"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def web(deploy, tmp_path_factory):
    key, certificate = self_signed(tmp_path_factory.mktemp("tls"))
    options = ("--keyfile", str(key), "--certfile", str(certificate))
    settings = {"wait_seconds": 20, "max_waiting": MAX_WAITING, "head_timeout": 60}
    site = deploy(pool=("--processes", "2"), web=options, **settings)
    return site.web


def context():
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def connect(port):
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context())


def fetch(connection, method="GET", target="/fast", body=None):
    connection.request(method, target, body=body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_requests_follow_each_other_on_one_connection(web):
    """Small ones, bodies of all sizes, and a redirect-free answer of many chunks."""
    connection = connect(web.port)
    for size in (0, 10, 70_000, 3_000_000):
        status, body = fetch(connection, "POST", f"/slow?seconds=0&tag=tls-{size}", b"x" * size)
        assert (status, body.split()[-1]) == (200, b"%d" % size)
    status, body = fetch(connection, target="/big?size=2000000")
    assert (status, len(body)) == (200, 2_000_000)
    assert fetch(connection)[0] == 200
    connection.close()


def test_two_requests_in_one_record(web):
    """A second request that comes along with the first one is answered too."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=60) as plain:
        sock = context().wrap_socket(plain)
        request = b"GET /fast HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /fast HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        sock.sendall(request + last)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
        sock.close()
    assert answer.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("what", ["hellos", "heads", "silence"])
def test_who_does_not_go_on_holds_up_nobody(web, seen, what):
    """More clients than threads stop within their handshake, or within a head: others are answered."""
    crowd = [socket.create_connection(("127.0.0.1", web.port), timeout=60) for _ in range(CROWD)]
    try:
        if what == "heads":
            crowd = [context().wrap_socket(sock) for sock in crowd]
            for sock in crowd:
                sock.sendall(b"GET /fast HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        elif what == "hellos":
            for sock in crowd:
                sock.sendall(HELLO)
        connection, began = connect(web.port), time.monotonic()
        assert fetch(connection)[0] == 200
        seen("the first response to another client", [time.monotonic() - began])
        connection.close()
        # Before any of them was given up.
        crowd[0].setblocking(False)
        with pytest.raises((BlockingIOError, ssl.SSLWantReadError)):
            crowd[0].recv(1)
    finally:
        for sock in crowd:
            sock.close()
