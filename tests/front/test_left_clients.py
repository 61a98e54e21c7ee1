"""Clients that leave before they were told a result URL: nobody can ask for their results."""

import signal
import socket

import pytest
from harness import ask, until

from wsgi_timeout.store import keys, rq_state


def send(site, method, target):
    client = socket.create_connection(("127.0.0.1", site.web.port), timeout=20)
    client.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    return client


def records(site):
    """Return the records of the site's calls, each with its seconds to live."""
    redis = site.redis.client
    found = redis.scan_iter(match=keys.call("*"))
    return {key: redis.ttl(key) for key in found if redis.hget(key, "name") == site.name.encode()}


def states(site):
    found = [site.redis.client.hget(key, "state") for key in records(site)]
    return sorted(filter(None, found))  # one may go between the two commands


def test_what_they_asked_for_is_not_kept(deploy, gate, nothing_is_left):
    """A queued GET does not run, a queued POST does; of that, and of a GET that ran, no response is kept."""
    site = deploy(pool=("--processes", "1"), wait_seconds=30)
    leaving = [send(site, "GET", f"/gate?file={gate}&tag=running")]
    until(lambda: site.runs("running"), what="its start")
    leaving.append(send(site, "GET", "/slow?tag=safe&seconds=0"))
    leaving.append(send(site, "POST", "/slow?tag=unsafe&seconds=0"))
    until(lambda: states(site) == [b"queued", b"queued", b"running"], what="two in the queue")
    for client in leaving:
        client.close()
    redis = site.redis.client
    until(lambda: states(site) == [b"ended", b"queued", b"running"], what="the end of the queued GET")
    until(lambda: sum(redis.hexists(key, "unwanted") for key in records(site)) == 2, what="both marks")
    gate.touch()
    assert ask(site.web.port, "/fast").status == 200
    assert site.runs("unsafe")
    assert not site.runs("safe")
    until(lambda: states(site) == [b"ended"] * 3, what="the end of all")
    assert max(records(site).values()) <= 60
    assert not any(redis.hexists(key, "body") for key in records(site))


CROWD = 75
METHODS = "GET", "HEAD", "POST", "PUT"


@pytest.mark.slow
def test_a_crowd_that_leaves_is_worked_and_stored_for_by_nobody(deploy, gate, nothing_is_left):
    """Of 75 clients of each method no response is kept; what is safe does not run, what is not runs once."""
    site = deploy(pool=("--processes", "1"), wait_seconds=60, max_waiting=2 * CROWD * len(METHODS))
    first = send(site, "GET", f"/gate?file={gate}&tag=first")
    until(lambda: site.runs("first"), what="its start")
    redis, queue = site.redis.client, rq_state.queue_key(site.name)
    before = redis.info("memory")["used_memory"]
    clients = [
        send(site, method, f"/slow?tag={method}&seconds=0&more=60000")
        for method in METHODS
        for _ in range(CROWD)
    ]
    until(lambda: redis.llen(queue) == len(clients), what="all in the queue")
    for client in (first, *clients):
        client.close()
    until(lambda: redis.llen(queue) == 2 * CROWD, what="the end of what is safe")
    gate.touch()
    until(lambda: not redis.llen(queue) and set(states(site)) == {b"ended"}, what="the end of all")
    assert [len(site.runs(method)) for method in METHODS] == [0, 0, CROWD, CROWD]
    assert max(records(site).values()) <= 60
    assert not any(redis.hexists(key, "body") for key in records(site))
    assert redis.info("memory")["used_memory"] - before < 2_000_000


@pytest.mark.parametrize("inline_body", [65536, 1], ids=["small", "streamed"])
def test_what_a_killed_web_process_waited_for_is_not_kept(deploy, gate, nothing_is_left, inline_body):
    """Its clients were told no URL, and their connections are gone: their results are kept for minutes."""
    site = deploy(pool=("--processes", "1"), wait_seconds=60, inline_body=inline_body)
    client = send(site, "GET", f"/gate?file={gate}&tag=killed")
    until(lambda: site.runs("killed"), what="its start")
    site.web.stop(signal.SIGKILL)
    gate.touch()
    until(lambda: states(site) == [b"ended"], what="its end")
    ((record, seconds),) = records(site).items()
    body = keys.response_body(record.decode().removeprefix(keys.call("")), 1)
    assert max(seconds, site.redis.client.ttl(body)) <= 120
    client.close()


def test_what_a_stopping_process_redirected_is_kept(deploy, gate, nothing_is_left):
    """It gives URLs out before their time: their results are kept for `result_ttl`."""
    site = deploy(pool=("--processes", "1"), wait_seconds=60, result_ttl=1000)
    client = send(site, "GET", f"/gate?file={gate}&tag=stopped")
    until(lambda: site.runs("stopped"), what="its start")
    site.web.stop()
    with client:
        assert client.recv(1000).startswith(b"HTTP/1.1 303")
    gate.touch()
    until(lambda: states(site) == [b"ended"], what="its end")
    assert max(records(site).values()) > 900
