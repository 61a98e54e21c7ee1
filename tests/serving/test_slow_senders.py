"""Crowds of clients whose requests come in drop by drop: everybody else is served meanwhile."""

import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from harness import ask, until

GEVENT = ("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker")
MADE_UP = f"/fast?__wsgi_timeout_call=fc-{'a' * 22}.{'b' * 32}&__wsgi_timeout_hop=1"

#: Seconds that a thread would sleep beside a client without a place; on a busy machine many times as much.
PAUSE = 5.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        pool=("--processes", "1"), wait_seconds=5, max_waiting=20, head_timeout=0.5, upload_timeout=0.3
    )


@pytest.fixture(scope="module", params=[(), GEVENT], ids=["gthread", "gevent"])
def web(site, request):
    """Threads, or places for those who wait, are fewer than the crowds."""
    web = site.start_web(*request.param)
    yield web
    web.stop()


def crowd(port, data, size=70):
    """Return so many connections on which this was sent."""
    clients = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(size)]
    for client in clients:
        client.sendall(data)
    return clients


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /fast HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /fast HTTP/1.1\r\nHost: x\r\nContent-Length: 6000000\r\n\r\nx",
        b"POST /fast HTTP/1.1\r\nHost: x\r\nContent-Length: 6000000\r\n\r\n" + b"x" * 100_000,
        b"POST /fast HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\nx",
        b"POST /fast HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: ",
        b"POST /fast HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\n\n",
        f"POST {MADE_UP} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\nx".encode(),
    ],
    ids=["heads", "bodies", "begun bodies", "chunked bodies", "trailers", "bad line ends", "result URLs"],
)
def test_a_crowd_that_sends_drop_by_drop_stops_nobody(web, beginning):
    """Beside more half requests than threads others get the app's answer, and the half ones are given up."""
    ask(web.port, "/fast")
    clients = crowd(web.port, beginning)
    assert [ask(web.port, "/fast").status for _ in range(5)] == [200] * 5
    for client in clients:
        ended(client)


def ended(client):
    """Wait until the server has said that it gives up, or has closed the connection."""
    with client:
        try:
            answer = client.recv(100)
        except ConnectionResetError:
            return
    assert answer[9:12] in {b"", b"400", b"404", b"408"}


def test_a_head_may_come_in_pieces(web):
    """A request whose bytes come one by one, two requests in one packet, and one in two are all answered."""
    body = b"POST /fast HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as client:
        for byte in body:
            client.sendall(bytes([byte]))
        answers(client, 1)
        client.sendall(body + body)
        answers(client, 2)
        client.sendall(body[:-20])
        client.sendall(body[-20:] + body[:30])
        answers(client, 1)
        client.sendall(body[30:])
        answers(client, 1)


@pytest.mark.parametrize("end", ["0\r\nX-Sum: 1\r\n\r\n", "0;last=1\r\n\r\n", "000\r\nX: 1\r\nY: 2\r\n\r\n"])
def test_trailers_and_extensions_end_a_chunked_body(web, end):
    """A chunked request ends with its last chunk, however that is written, and another one may follow."""
    request = "POST /fast HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + end
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as client:
        for count in (1, 2):
            client.sendall(count * request.encode())
            answers(client, count)


@pytest.mark.parametrize("head", ["Transfer-Encoding: 9", "Transfer-Encoding: chunked\r\nContent-Length: 3"])
def test_a_coding_that_is_refused_is_not_waited_for(web, head):
    """A request whose body has no end that a server may believe in is refused by its head."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as client:
        client.sendall(f"POST /fast HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        assert client.recv(100)[9:12] in {b"400", b"501"}


def answers(client, count):
    seen = b""

    def come():
        nonlocal seen
        seen += client.recv(65536)
        return seen.count(b"HTTP/1.1 200") == count

    until(come, what=f"{count} answers")


def test_a_crowd_on_one_result_url_takes_no_threads(deploy, gate):
    """Eighty clients on a result URL, with places for few of them, delay no other route."""
    site = deploy(pool=("--processes", "1"), wait_seconds=1, max_waiting=4, gateway="except_=['/fast*']")
    location = ask(site.web.port, f"/gate?file={gate}").location
    data = f"GET {location} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    clients = crowd(site.web.port, data, 80)
    began = time.monotonic()
    assert [ask(site.web.port, "/fast").status for _ in range(5)] == [200] * 5
    assert time.monotonic() - began < PAUSE
    for client in clients:
        with client:
            assert client.recv(100).startswith(b"HTTP/1.1 303")
    gate.touch()


@pytest.fixture(scope="module")
def narrow(deploy):
    """A site with two places for uploads in each web process."""
    return deploy(pool=("--processes", "1"), max_waiting=4)


@pytest.mark.parametrize(
    "options", [(), pytest.param(GEVENT, marks=pytest.mark.slow)], ids=["gthread", "gevent"]
)
def test_a_slow_upload_makes_room(narrow, options):
    """While slow uploads, above the least rate, hold all places for them, one ends for another one."""
    web, over = narrow.start_web(*options), threading.Event()
    body = b"POST /hash HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 66_000
    clients = crowd(web.port, body, 2)

    def go_on():
        while not over.wait(0.05):
            for client in clients:
                with suppress(OSError):
                    client.send(b"x" * 200)

    def served():
        """Upload, and return the slow clients that have an answer: none until both hold their places."""
        assert ask(web.port, "/hash?tag=large", "POST", body=b"y" * 200_000, timeout=50).status == 200
        return select.select(clients, [], [], 0.1)[0]

    with ThreadPoolExecutor(1) as aside:
        try:
            going = aside.submit(go_on)
            assert until(served, 40, "the end of a slow one")[0].recv(100).startswith(b"HTTP/1.1 408")
        finally:
            over.set()
            going.result()
            for client in clients:
                client.close()
            web.stop()
