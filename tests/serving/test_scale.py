"""Many at once, at a tenth of the size that the benchmark measures: who waits costs little memory."""

import socket
import time

import psutil
import pytest
from harness import ask, until

#: Bytes that one sleeping thread may cost, and what a process may grow by besides.
A_THREAD = 250_000
A_PROCESS = 4_000_000
#: Bytes that one waiting greenlet may cost: 24 KB on Python 3.11, 31 KB on 3.13.
A_GREENLET = 35_000
GEVENT = ("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker", "--worker-connections", "1200")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1", "--threads", "50"), wait_seconds=30, max_waiting=60)


def memory(process):
    """Return the bytes that the children of a process do not share with anybody."""
    return sum(child.memory_full_info().uss for child in psutil.Process(process.pid).children(recursive=True))


def send(port, target):
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return client


def answer(client):
    with client:
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_fifty_handlers_sleep_in_one_process(site, redis_server, gate):
    """Fifty handlers run side by side in one worker process, and end together when they may."""
    for _ in range(5):
        assert ask(site.web.port, "/fast").status == 200
    before = {half: memory(half) for half in (site.pool, site.web)}
    clients = [send(site.web.port, f"/gate?file={gate}&tag=fifty") for _ in range(50)]
    until(lambda: redis_server.client.zcard(f"rq:wip:wt:{site.name}") == 50, what="the start of all")
    for half in (site.pool, site.web):
        assert memory(half) - before[half] < 50 * A_THREAD + A_PROCESS
    gate.touch()
    began = time.monotonic()
    answers = [answer(client) for client in clients]
    assert time.monotonic() - began < 5
    assert all(said.startswith(b"HTTP/1.1 200 OK\r\n") for said in answers)
    assert len({line.split()[1] for line in site.runs("fifty")}) == 1


def test_fifty_requests_wait_in_one_process(site, redis_server):
    """Fifty requests wait while no worker takes any: a thread each, and four connections for all."""
    (worker,) = site.pool.workers()
    before = memory(site.web)
    worker.suspend()
    try:
        connections = redis_server.client.info("clients")["connected_clients"]
        clients = [send(site.web.port, "/fast") for _ in range(50)]
        until(lambda: redis_server.client.llen(f"rq:queue:wt:{site.name}") >= 49, what="the queue")
        assert memory(site.web) - before < 50 * A_THREAD + A_PROCESS
        assert redis_server.client.info("clients")["connected_clients"] <= connections + 3
    finally:
        worker.resume()
    assert all(answer(client).startswith(b"HTTP/1.1 200 OK\r\n") for client in clients)


def test_a_thousand_requests_wait_in_one_gevent_process(site, redis_server):
    """A thousand that come at once wait in one process, a greenlet each, and four connections for all."""
    (worker,) = site.pool.workers()
    web = site.start_web(*GEVENT, gateway="max_waiting=1100")
    clients = []
    try:
        for _ in range(5):
            assert ask(web.port, "/fast").status == 200
        worker.suspend()
        before = memory(web)
        connections = redis_server.client.info("clients")["connected_clients"]
        clients += [send(web.port, "/fast") for _ in range(1000)]
        until(lambda: redis_server.client.llen(f"rq:queue:wt:{site.name}") >= 999, 30, "the queue")
        assert memory(web) - before < 1000 * A_GREENLET
        assert redis_server.client.info("clients")["connected_clients"] <= connections + 3
        worker.resume()
        assert all(answer(client).startswith(b"HTTP/1.1 200 OK\r\n") for client in clients)
    finally:
        worker.resume()
        for client in clients:
            client.close()
        web.stop()
