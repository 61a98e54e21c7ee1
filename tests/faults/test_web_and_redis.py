"""Web processes that are killed; a Redis that closes connections, is slow, refuses, forgets everything."""

import hashlib
import http.client
import os
import signal
import socket
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from call_steps import W1, fresh_calls
from faults.proxy import Proxy
from harness import APPS, Gunicorn, ask, follow, until
from remains import alive

from wsgi_timeout.store import keys
from wsgi_timeout.store.streams import CHUNK
from wsgi_timeout.watching.leases import LeaseWatch

LEASE = 2.0
LARGE = array("Q", range(200_000)).tobytes()
GEVENT = ("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_is_left")]


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        pool=("--processes", "2", "--threads", "4"), wait_seconds=20, worker_wait=1, lease_seconds=LEASE
    )


@pytest.fixture
def aside():
    with ThreadPoolExecutor(20) as threads:
        yield threads


@pytest.fixture
def web(site):
    """A web process of the test's own, which it may kill; its master starts another."""
    web = site.start_web(gateway="wait_for_response=False")
    ask(web.port, "/fast")
    yield web
    web.stop()


def begun(site, tag):
    return until(lambda: site.runs(tag), what=f"the begin of {tag}")


def kill_web(web):
    (worker,) = web.workers()
    os.kill(worker.pid, signal.SIGKILL)


def test_a_call_outlives_its_killed_web_process(site, web, aside, gate, seen):
    """A client of a killed web process sees a reset; on the result URL that it has it gets the response."""
    url = ask(web.port, f"/gate?tag=outlives&file={gate}").location
    begun(site, "outlives")
    waiting = aside.submit(ask, web.port, url)
    until(lambda: site.redis.client.hget(record(site, "outlives"), "inboxes"), what="a waiting hop")
    kill_web(web)
    killed = time.monotonic()
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        waiting.result()
    gate.touch()
    assert follow(web.port, url)[-1].text == "passed outlives\n"
    seen("the response from the next process", [time.monotonic() - killed])
    assert len(site.runs("outlives")) == 1


@pytest.mark.parametrize("worker_class", [(), GEVENT], ids=["gthread", "gevent"])
def test_a_killed_master_takes_its_workers_along(site, aside, gate, seen, worker_class):
    """When gunicorn's master alone is killed, its workers redirect what waits, end, and free the port."""
    web, tag = site.start_web(*worker_class), f"master{len(worker_class)}"
    waiting = aside.submit(ask, web.port, f"/gate?tag={tag}&file={gate}")
    begun(site, tag)
    workers = web.workers()
    web.popen.kill()
    killed = time.monotonic()
    answer = waiting.result()
    seen("the 303", [time.monotonic() - killed])
    assert answer.status == 303
    assert time.monotonic() - killed < 5
    until(lambda: not any(map(alive, workers)), what="the end of its workers")
    seen("the end of its workers", [time.monotonic() - killed])
    # As a supervisor does, on the port that is free again.
    new = site.start_web(*worker_class, sock=web.socket)
    try:
        gate.touch()
        assert follow(web.port, answer.location)[-1].text == f"passed {tag}\n"
        assert len(site.runs(tag)) == 1
    finally:
        new.stop()
        web.stop()


def record(site, tag):
    """Return the record of the call whose path and query have a tag; there is one such call."""
    client, mark = site.redis.client, f"tag={tag}".encode()
    return next(key for key in client.scan_iter(keys.call("*")) if mark in client.hget(key, "request"))


def begin_upload(web, tag, size):
    """Send the head of an upload and so many bytes of its body; returns the connection."""
    sock = socket.create_connection(("127.0.0.1", web.port), timeout=20)
    head = f"POST /hash?tag={tag} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LARGE)}\r\n\r\n"
    sock.sendall(head.encode() + LARGE[:size])
    return sock


def test_an_upload_through_a_killed_web_process_never_begins(site, web, seen):
    """When a web process is killed before an upload filled the buffer, its handler never begins."""
    with begin_upload(web, "cut", len(LARGE) // 2) as sock:
        bodies = until(lambda: list(site.redis.client.scan_iter(keys.request_body("*"))), what="its chunks")
        kill_web(web)
        killed = time.monotonic()
        with suppress(ConnectionResetError):
            assert sock.recv(1) == b""
        seen("the break", [time.monotonic() - killed])
    # What lay in Redis goes by itself, in a minute.
    assert [0 < site.redis.client.ttl(key) <= keys.UPLOAD_TTL for key in bodies] == [True]
    assert ask(web.port, "/fast?tag=after-cut").status == 202
    begun(site, "after-cut")
    assert not site.runs("cut")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_what_a_killed_web_process_took_in_is_freed(site, web, seen):
    """The chunks of an upload whose web process was killed are gone from Redis after a minute."""
    with begin_upload(web, "freed", len(LARGE) // 2):
        (key,) = until(lambda: list(site.redis.client.scan_iter(keys.request_body("*"))), what="its chunks")
        kill_web(web)
        killed = time.monotonic()
    until(lambda: not site.redis.client.exists(key), keys.UPLOAD_TTL + 5, "the end of its chunks")
    seen("until its chunks were gone", [time.monotonic() - killed])


def test_a_handler_whose_upload_lost_its_web_process_ends(site, seen):
    """When a web process is killed under an upload that a handler reads, the handler gets an error soon."""
    small = site.start_web(gateway="wait_for_response=False, buffer=300_000, max_spooled_body=300_000")
    try:
        with begin_upload(small, "orphan", len(LARGE) - 100_000):
            begun(site, "orphan")
            key = record(site, "orphan")
            kill_web(small)
            killed = time.monotonic()
        until(lambda: site.redis.client.hget(key, "state") == b"ended", LEASE + 8, "its end")
        seen("until its handler got an error", [time.monotonic() - killed])
        assert b"500 " in site.redis.client.hget(key, "head")
        assert (len(site.runs("orphan")), site.runs("orphan-whole")) == (1, [])
        body = keys.request_body(key.decode().rpartition(":")[2])
        assert not site.redis.client.exists(body)
    finally:
        small.stop()


def test_an_upload_that_rests_is_waited_for(site, aside):
    """A client that pauses for longer than a lease, in mid upload, is not taken for a dead web process."""
    small = site.start_web(gateway="buffer=300_000, max_spooled_body=300_000")
    try:
        with begin_upload(small, "rests", len(LARGE) - 10) as sock:
            begun(site, "rests")
            since = time.monotonic()
            until(lambda: time.monotonic() - since > 3 * LEASE)
            sock.sendall(LARGE[-10:])
            assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert len(site.runs("rests-whole")) == 1
    finally:
        small.stop()


def test_a_download_from_a_killed_web_process_can_be_had_again(site, web, aside, seen):
    """A download that broke with its web process is had again, whole, from the same result URL."""
    urls = ask(web.port, f"/numbers?tag=again&size={len(LARGE)}").json
    until(lambda: ask(web.port, urls["status_url"]).json["state"] == "ended", what="its end")
    url = urls["result_url"]
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert sock.recv(1000)
        kill_web(web)
        killed = time.monotonic()
    until(lambda: follow(web.port, url)[-1].body == LARGE, what="the whole body")
    seen("the whole body from the next process", [time.monotonic() - killed])
    assert len(site.runs("again")) == 1


# -- Redis


def test_an_upload_whose_beginning_redis_lost_never_begins(site, seen):
    """Chunks that Redis has lost before their call is queued: 503, and its handler never begins."""
    for size in (len(LARGE) // 2, len(LARGE) - 1):
        others = set(site.redis.client.scan_iter(keys.request_body("*")))
        with begin_upload(site.web, f"lost{size}", size) as sock:
            (key,) = until(
                lambda others=others: set(site.redis.client.scan_iter(keys.request_body("*"))) - others,
                what="its chunks",
            )
            # All that fit into whole chunks, so that none comes after the loss but the last one.
            until(
                lambda key=key, size=size: int(site.redis.client.hget(key, "count")) == size // CHUNK,
                what="all of them",
            )
            site.redis.client.delete(key)
            sock.sendall(LARGE[size:])
            sent = time.monotonic()
            assert sock.recv(100).startswith(b"HTTP/1.1 503 ")
            seen("the 503, after its last byte", [time.monotonic() - sent])
        assert not site.runs(f"lost{size}")


def test_an_upload_whose_beginning_redis_lost_ends(site, seen):
    """Chunks that Redis has lost while a handler reads them: it gets an error, and its client a 500."""
    small = site.start_web(gateway="buffer=300_000, max_spooled_body=300_000")
    try:
        with begin_upload(small, "half", len(LARGE) - 100_000) as sock:
            begun(site, "half")
            site.redis.client.delete(keys.request_body(record(site, "half").decode().rpartition(":")[2]))
            sock.sendall(LARGE[-100_000:])
            sent = time.monotonic()
            assert sock.recv(100).startswith(b"HTTP/1.1 500 ")
            seen("the 500, after its last byte", [time.monotonic() - sent])
        assert (len(site.runs("half")), site.runs("half-whole")) == (1, [])
    finally:
        small.stop()


def traffic(site, aside, count):
    """Send requests of several kinds at once; each is answered with its own bytes, and runs once.

    Returns the seconds that small ones took beyond their handler's 0.3.
    """
    port, mark = site.web.port, time.monotonic_ns()

    def timed(target):
        began = time.monotonic()
        return follow(port, target, "POST"), time.monotonic() - began

    small = [aside.submit(timed, f"/slow?seconds=0.3&tag=small{mark}-{n}") for n in range(count)]
    up = [aside.submit(ask, port, f"/hash?tag=up{mark}-{n}", "POST", body=LARGE) for n in range(2)]
    down = [aside.submit(ask, port, f"/numbers?tag=down{mark}-{n}&size={len(LARGE)}") for n in range(2)]
    for number, waiting in enumerate(small):
        assert waiting.result()[0][-1].text == f"slow POST small{mark}-{number} 0\n"
    digest = hashlib.sha256(LARGE).hexdigest()
    assert [waiting.result().json["sha256"] for waiting in up] == [digest] * 2
    assert [waiting.result().body == LARGE for waiting in down] == [True] * 2
    tags = [f"small{mark}-{n}" for n in range(count)]
    tags += [f"{kind}{mark}-{n}" for kind in ("up", "down") for n in (0, 1)]
    assert [len(site.runs(tag)) for tag in tags] == [1] * len(tags)
    return [waiting.result()[1] - 0.3 for waiting in small]


@pytest.mark.slow
def test_connections_that_are_killed_again_and_again(site, aside, seen):
    """Redis closes all connections twice a second for 10 s: no request fails, none runs twice."""
    client = site.redis.client
    end = time.monotonic() + 10
    next_kill = 0.0
    running = aside.submit(traffic_until, site, end)
    while not running.done():
        if time.monotonic() >= next_kill:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            next_kill = time.monotonic() + 0.5
        until(lambda: running.done() or time.monotonic() >= next_kill)  # noqa: B023
    seen("a request, beyond its handler's time", running.result())


def traffic_until(site, end):
    took = []
    with ThreadPoolExecutor(20) as threads:
        while time.monotonic() < end:
            took += traffic(site, threads, 6)
    return took


def test_a_slow_redis_is_slow_and_correct(redis_server, deploy, tmp_path, seen):
    """With 0.1 s of delay in every command the answers are late and right."""
    proxy = Proxy(redis_server, tmp_path / "s")
    site = deploy(pool=("--processes", "1"), wait_seconds=20)
    app = f"wsgi_timeout:gateway('basic:app', name={site.name!r})"
    web = Gunicorn(app, proxy.url, env=site.env, cwd=APPS)
    try:
        ask(web.port, "/fast")
        proxy.delay_seconds = 0.1
        began = time.monotonic()
        answer = ask(web.port, "/hash?tag=slow", "POST", body=LARGE)
        seen("1.6 MB up", [time.monotonic() - began])
        assert answer.json["sha256"] == hashlib.sha256(LARGE).hexdigest()
        began = time.monotonic()
        assert ask(web.port, f"/numbers?size={len(LARGE)}").body == LARGE
        seen("1.6 MB down", [time.monotonic() - began])
        assert len(site.runs("slow")) == 1
    finally:
        web.stop()
        proxy.close()


def test_a_forgotten_script_is_loaded_again(site, seen):
    """SCRIPT FLUSH is noticed by nobody."""
    for _ in range(3):
        site.redis.client.script_flush()
        began = time.monotonic()
        assert ask(site.web.port, "/fast").status == 200
        seen("a response", [time.monotonic() - began])


@pytest.mark.parametrize("reads", ["yes", "no"])
def test_a_redis_that_is_read_only_for_a_while(site, aside, gate, seen, reads):
    """Redis a replica for longer than a lease, with reads or none: 503 for what is new; nothing is lost."""
    client, tag = site.redis.client, f"replica-{reads}"
    waiting = aside.submit(ask, site.web.port, f"/gate?tag={tag}&file={gate}")
    begun(site, tag)
    client.replicaof("127.0.0.1", "1")
    try:
        client.config_set("replica-serve-stale-data", reads)
        gate.touch()
        refused = ask(site.web.port, "/fast?tag=refused")
        assert (refused.status, refused.header("Retry-After")) == (503, "5")
        since = time.monotonic()
        until(lambda: time.monotonic() - since > LEASE + 1)
    finally:
        client.replicaof("NO", "ONE")
        client.config_set("replica-serve-stale-data", "yes")
    back = time.monotonic()
    assert waiting.result().text == f"passed {tag}\n"
    seen("the response, from its end", [time.monotonic() - back])
    assert until(lambda: ask(site.web.port, "/fast").status == 200, what="a new request's answer")
    assert (len(site.runs(tag)), site.runs("refused")) == (1, [])


def test_silence_while_redis_refuses_writes_proves_nothing(redis_server):
    """A lease that nobody could renew, since Redis was a replica, is looked at anew when it is none."""
    with fresh_calls(redis_server, "refusing") as calls:
        watch = LeaseWatch(calls.workers, 1.0)
        began = time.monotonic()

        def look_for(seconds):
            until(lambda: watch.step() or time.monotonic() - began > seconds)

        watch.step()
        redis_server.client.replicaof("127.0.0.1", "1")
        look_for(0.8)
        redis_server.client.replicaof("NO", "ONE")
        look_for(1.4)
        assert calls.redis.hexists(keys.leases("refusing"), W1)
        look_for(2.5)
        assert not calls.redis.hexists(keys.leases("refusing"), W1)


def test_a_redis_that_lost_everything_hangs_nobody(deploy, aside, gate, seen):
    """After FLUSHALL a waiting request ends with 404 soon, and so does a result URL; new ones are served."""
    site = deploy(pool=("--processes", "1"), wait_seconds=20, worker_wait=20)
    hasty = site.start_web(gateway="wait_seconds=0.3")
    url = ask(hasty.port, f"/gate?tag=flushed&file={gate}").location
    waiting = aside.submit(ask, site.web.port, f"/gate?tag=queued&file={gate}")
    until(lambda: site.redis.client.llen(f"rq:queue:wt:{site.name}"), what="a queue")
    site.redis.client.flushall()
    began = time.monotonic()
    assert waiting.result().status == 404
    assert ask(hasty.port, url).status == 404
    seen("until both were told", [time.monotonic() - began])
    assert time.monotonic() - began < 5
    gate.touch()
    hasty.stop()
    assert until(lambda: ask(site.web.port, "/fast").status == 200, 20, "an answer of a new worker")


def test_a_server_that_evicts_is_warned_of(redis_server, deploy, seen):
    """Both halves say in one line that the server throws keys away when it is full, and what to set."""
    client = redis_server.client
    client.config_set("maxmemory", "1gb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        began = time.monotonic()
        site = deploy(pool=("--processes", "1"))
        assert ask(site.web.port, "/fast").status == 200
        for half in (site.pool, site.web):
            line = half.wait_for(r"Redis has maxmemory-policy allkeys-lru: .* Set it to noeviction\n")[0]
            assert half.output.count(line) == 1
        seen("until both had said it, from their start", [time.monotonic() - began])
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "0")
