"""What is given up, and then free again: calls of clients that left, or that RQ's tools took away."""

import socket
import threading
import time

import pytest
import rq
from harness import ask, until
from rq.serializers import JSONSerializer

from wsgi_timeout.store import keys, rq_state

BUDGET = 200_000
CLIENTS = 8

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_is_left")]


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), wait_seconds=30, max_buffered_bytes=BUDGET, worker_wait=1)


@pytest.fixture
def busy(site, gate, request):
    """Have the one worker run a call; it ends with the test."""
    tag = f"busy-{request.node.name}"
    waiting = threading.Thread(target=ask, args=(site.web.port, f"/gate?file={gate}&tag={tag}"))
    waiting.start()
    until(lambda: site.runs(tag), what="a call that runs")
    yield
    gate.touch()
    waiting.join()
    until(lambda: not site.redis.client.llen(rq_state.queue_key(site.name)), what="an empty queue")


def queued(site):
    return site.redis.client.llen(rq_state.queue_key(site.name))


@pytest.mark.usefixtures("busy")
def test_the_calls_of_clients_that_left_are_dropped(site, seen):
    """GETs that wait for a worker when their clients leave do not run, and take no place any more."""
    clients = []
    for number in range(CLIENTS):
        clients.append(socket.create_connection(("127.0.0.1", site.web.port), timeout=20))
        clients[-1].sendall(f"GET /fast?tag=left-{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    until(lambda: queued(site) == CLIENTS, what="all in the queue")
    left = time.monotonic()
    for client in clients:
        client.close()
    until(lambda: not queued(site), what="none in the queue")
    seen("all were dropped", [time.monotonic() - left])
    assert not any(site.runs(f"left-{number}") for number in range(CLIENTS))


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("tool", ["empty", "cancel", "delete"])
def test_what_rqs_own_tools_take_away_ends(site, seen, tool):
    """`rq empty`, `job.cancel()` and `job.delete()` end a queued call as cancelled, for who waits for it."""
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(ask(site.web.port, f"/fast?tag=rq-{tool}")))
    waiting.start()
    until(lambda: queued(site) == 1, what="a call in the queue")
    (call_id,) = site.redis.client.lrange(rq_state.queue_key(site.name), 0, -1)
    shared = {"connection": site.redis.client, "serializer": JSONSerializer}
    began = time.monotonic()
    if tool == "empty":
        rq.Queue(rq_state.queue_name(site.name), **shared).empty()
    else:
        getattr(rq.job.Job.fetch(call_id.decode(), **shared), tool)()
    waiting.join(30)
    seen("410", [time.monotonic() - began])
    assert answers[0].status == 410
    assert not site.runs(f"rq-{tool}")
    # RQ's own list of what was cancelled has no TTL.
    listed = f"rq:canceled:{rq_state.queue_name(site.name)}"
    until(lambda: not site.redis.client.exists(listed), what="an empty list of what was cancelled")


@pytest.mark.usefixtures("busy")
def test_bytes_are_free_with_what_they_were_for(site, seen):
    """Over `max_buffered_bytes` a request is refused; when a large queued one is gone, the next is taken."""
    large = {"X-Large": "x" * 6000}

    def fill():
        client = socket.create_connection(("127.0.0.1", site.web.port), timeout=20)
        head = f"GET /fast?tag=filling HTTP/1.1\r\nHost: x\r\nX-Large: {large['X-Large']}\r\n\r\n"
        client.sendall(head.encode())
        return client

    counted = keys.buffered(site.name)
    clients = []
    while int(site.redis.client.hget(counted, "*")) < BUDGET - 8000:
        before = queued(site)
        clients.append(fill())
        until(lambda before=before: queued(site) == before + 1, what="one more in the queue")
    assert ask(site.web.port, "/fast?tag=refused", headers={"X-Large": "x" * 8000}).status == 503
    left = time.monotonic()
    for client in clients:
        client.close()
    until(lambda: int(site.redis.client.hget(counted, "*")) < 10_000, what="room")
    seen("there is room", [time.monotonic() - left])
    assert not site.runs("refused")
