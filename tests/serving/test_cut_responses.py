"""A response that breaks off never looks whole, also to a client that knows its end by the connection's."""

import signal
import socket

import psutil
import pytest
from harness import ask, raw_request

GEVENT = ("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker")

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "2"), wait_seconds=20)


@pytest.fixture(scope="module", params=[(), GEVENT], ids=["gthread", "gevent"])
def web(site, request):
    web = site.start_web(*request.param, gateway="except_=['/direct/*']")
    yield web
    web.stop()


def begun(port, target):
    """Return an HTTP/1.0 client's connection on which a response has begun, and what came."""
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(f"GET {target} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
    return client, client.recv(65536)


def read_on(client):
    with client:
        while client.recv(65536):
            pass


def test_a_handler_that_raises_in_mid_body_resets_the_connection(web):
    """An HTTP/1.0 client sees a reset, not an end; a whole response ends as ever."""
    client, _ = begun(web.port, "/breaks?pieces=3")
    with pytest.raises(ConnectionResetError):
        read_on(client)
    whole = raw_request(web.port, b"GET /numbers HTTP/1.0\r\nHost: x\r\n\r\n")
    assert b"\r\n\r\n" in whole
    assert b"content-length" not in whole.lower()
    assert ask(web.port, "/fast").status == 200


@pytest.mark.slow
def test_a_killed_web_process_resets_the_connection(web, site, gate):
    """When the web process is killed under a download, an HTTP/1.0 client sees a reset."""
    client, head = begun(web.port, f"/trickle?file={gate}")
    assert b"200 OK" in head
    [worker] = web.workers()
    psutil.Process(worker.pid).send_signal(signal.SIGKILL)
    with pytest.raises(ConnectionResetError):
        read_on(client)
    gate.touch()
