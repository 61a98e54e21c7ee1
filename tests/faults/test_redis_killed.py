"""A Redis that is killed and started again, or full, while calls are in every state."""

import hashlib
import http.client
import signal
import threading
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pytest
from harness import ask, follow, until

from wsgi_timeout.store import keys

LEASE = 2.0
#: Seconds that Redis is away: longer than a lease.
AWAY_SECONDS = 2.5
#: Seconds after its return in which everything must be there.
PROMISED = 5.0
#: A body that does not fit the buffer, and in which a lost or doubled piece shows.
LARGE = array("Q", range(200_000)).tobytes()
#: One that no socket's buffer takes while its client does not read.
HUGE = array("Q", range(2_000_000)).tobytes()

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    """Four handlers at a time in two processes; bodies over 300 kB do not fit their buffer."""
    return deploy(
        pool=("--processes", "2", "--threads", "2"),
        wait_seconds=40,
        worker_wait=1,
        lease_seconds=LEASE,
        buffer=300_000,
        max_result=600_000,
    )


@pytest.fixture
def aside():
    with ThreadPoolExecutor(20) as threads:
        yield threads


@dataclass
class Outage:
    ended: float = 0.0


@contextmanager
def away(server, seconds=AWAY_SECONDS):
    """Kill Redis; it is back after some seconds, from its append-only file."""
    outage = Outage()
    # With this reply all earlier ones are sent: what a test has seen queued is accepted.
    server.client.ping()
    server.stop(signal.SIGKILL)
    began = time.monotonic()
    yield outage
    until(lambda: time.monotonic() >= began + seconds, seconds + 5)
    server.start()
    outage.ended = time.monotonic()


def begun(site, tag):
    return until(lambda: site.runs(tag), what=f"the begin of {tag}")


@pytest.fixture
def paused():
    """What clients wait for in the middle of their transfers; set when the test ends."""
    event = threading.Event()
    yield event
    event.set()


def test_everything_under_way_is_only_delayed(site, redis_server, aside, gate, paused, seen):
    """Calls queued, uploaded, running, streamed, delivered when Redis is killed arrive, run once each."""
    port = site.web.port
    uploading = aside.submit(uploaded, port, "/hash?tag=uploaded", LARGE, paused)
    begun(site, "uploaded")
    began = threading.Event()
    downloading = aside.submit(downloaded, port, f"/numbers?tag=streamed&size={len(HUGE)}", began, paused)
    assert began.wait(20)
    running = aside.submit(ask, port, f"/gate?tag=running&file={gate}")
    posted = aside.submit(ask, port, f"/hash?tag=posted&file={gate}", "POST", body=b"x" * 100_000)
    tags = ["uploaded", "streamed", "running", "posted", "queued0", "queued1"]
    for tag in tags[:4]:
        begun(site, tag)
    queued = [aside.submit(ask, port, f"/slow?seconds=0&tag={tag}", "POST") for tag in tags[4:]]
    until(lambda: redis_server.client.llen(f"rq:queue:wt:{site.name}") == 2, what="a queue")

    with away(redis_server) as outage:
        refused = ask(port, "/fast?tag=refused")
        assert (refused.status, refused.header("Retry-After")) == (503, "5")
        assert refused.json["detail"].startswith("this request cannot be taken now")
        paused.set()
        gate.touch()

    assert downloading.result() == HUGE
    assert uploading.result().json == {"length": len(LARGE), "sha256": hashlib.sha256(LARGE).hexdigest()}
    assert (running.result().text, posted.result().json["length"]) == ("passed running\n", 100_000)
    assert [answer.result().text for answer in queued] == [f"slow POST {tag} 0\n" for tag in tags[4:]]
    took = time.monotonic() - outage.ended
    seen("all answers after its return", [took])
    assert took < PROMISED
    assert [len(site.runs(tag)) for tag in tags] == [1] * 6
    assert not site.runs("refused")


def uploaded(port, target, body, paused):
    """Send a body, with a pause after its half."""

    def halves():
        yield body[: len(body) // 2]
        paused.wait(30)
        yield body[len(body) // 2 :]

    return ask(port, target, "POST", body=halves(), headers={"Content-Length": str(len(body))})


def downloaded(port, target, began, paused):
    """Read a response, with a pause after its beginning."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with closing(connection):
        connection.request("GET", target)
        response = connection.getresponse()
        body = response.read(10_000)
        began.set()
        paused.wait(30)
        return body + response.read()


def test_an_upload_before_its_call_is_only_delayed(site, redis_server, aside, paused, seen):
    """An upload whose call is not queued yet, because it fits the buffer, goes on after a short outage."""
    web = site.start_web(gateway="worker_wait=20, buffer=4_000_000")
    try:
        uploading = aside.submit(uploaded, web.port, "/hash?tag=early", LARGE, paused)
        until(lambda: list(redis_server.client.scan_iter(keys.request_body("*"))), what="its first chunks")
        with away(redis_server) as outage:
            paused.set()
        answer = uploading.result()
        seen("its answer after the return", [time.monotonic() - outage.ended])
        assert answer.json["sha256"] == hashlib.sha256(LARGE).hexdigest()
        assert len(site.runs("early")) == 1
    finally:
        web.stop()


@pytest.mark.slow
def test_results_wait_for_a_redis_that_comes_back(site, redis_server, gate, seen):
    """A waiting client is redirected while Redis is away, as ever; a next hop gets the response."""
    web = site.start_web(gateway="wait_seconds=1")
    try:
        url = ask(web.port, f"/gate?tag=hops&file={gate}").location
        with away(redis_server, seconds=4) as outage:
            began = time.monotonic()
            while (answer := ask(web.port, url)).status == 303 and time.monotonic() - began < 3:
                url = answer.location
            gate.touch()
            # No tight loop: each hop waits its second.
            assert answer.status == 303
            assert 3 <= int(url.rpartition("=")[2]) <= 5
        answers = follow(web.port, url)
        seen("the response of the next hop, after its return", [time.monotonic() - outage.ended])
        assert answers[-1].text == "passed hops\n"
        assert len(site.runs("hops")) == 1
    finally:
        web.stop()


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_redis_that_dies_with_a_calls_end_loses_nothing(site, redis_server, aside, tmp_path, seen, times):
    """When Redis is killed at the moment in which a handler ends, its outcome is recorded later, once."""
    took = []
    for number in range(times):
        gate, tag = tmp_path / f"{number}", f"end{times}-{number}"
        waiting = aside.submit(ask, site.web.port, f"/gate?tag={tag}&file={gate}")
        begun(site, tag)
        gate.touch()
        with away(redis_server, seconds=0.5) as outage:
            pass
        assert waiting.result().text == f"passed {tag}\n"
        took.append(time.monotonic() - outage.ended)
        assert len(site.runs(tag)) == 1
    seen("an answer after its return", took)
    assert max(took) < PROMISED


# -- a full Redis


@pytest.fixture
def full(redis_server):
    """Return a function that fills Redis up; it has room again when the test ends."""
    client = redis_server.client
    client.config_set("maxmemory-policy", "noeviction")
    yield lambda: client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
    client.config_set("maxmemory", 0)


@pytest.mark.slow
def test_a_full_redis_refuses_what_is_new_and_loses_nothing(site, redis_server, full, aside, gate, seen):
    """Full for longer than a lease: 503 for new requests, what runs ends and is delivered, no worker dies."""
    port = site.web.port
    workers = {worker.pid for worker in site.pool.workers()}
    small = aside.submit(ask, port, f"/gate?tag=small&file={gate}")
    posted = aside.submit(ask, port, f"/hash?tag=full&file={gate}", "POST", body=LARGE)
    hasty = site.start_web(gateway="wait_seconds=1")
    hopping = aside.submit(follow, hasty.port, f"/gate?tag=hopping&file={gate}")
    for tag in ("small", "full", "hopping"):
        begun(site, tag)
    full()
    began = time.monotonic()
    refused = ask(port, "/fast?tag=new")
    assert (refused.status, refused.header("Retry-After")) == (503, "5")
    seen("until a new request was refused", [time.monotonic() - began])
    assert time.monotonic() - began < PROMISED
    large = ask(port, "/hash?tag=new", "POST", body=LARGE)
    assert large.status == 503
    until(lambda: time.monotonic() - began > 2.5 * LEASE, 3 * LEASE)
    assert not any(waiting.done() for waiting in (small, posted, hopping))
    gate.touch()
    opened = time.monotonic()
    assert small.result().text == "passed small\n"
    assert hopping.result()[-1].text == "passed hopping\n"
    seen("responses while it is full, from their handlers' end", [time.monotonic() - opened])
    # It needs room for the rest of its body.
    redis_server.client.config_set("maxmemory", 0)
    assert posted.result().json["sha256"] == hashlib.sha256(LARGE).hexdigest()
    assert [ask(port, f"/fast?tag=after{n}").status for n in range(4)] == [200] * 4
    assert workers <= {worker.pid for worker in site.pool.workers()}
    assert [len(site.runs(tag)) for tag in ("small", "full", "hopping", "new")] == [1, 1, 1, 0]
    hasty.stop()


def test_a_full_redis_takes_downloads_and_deletions(site, redis_server, full, aside, paused):
    """A result that is complete can be fetched from a full Redis; with that it makes room soon."""
    web = site.start_web(gateway="wait_for_response=False")
    try:
        url = ask(web.port, f"/numbers?tag=kept&size={len(LARGE) // 4}").json["result_url"]
        status = url.replace("_call=", "_status=")
        until(lambda: ask(web.port, status).json["state"] == "ended", what="its end")
        full()
        assert ask(web.port, "/fast").status == 503
        assert ask(web.port, url).body == LARGE[: len(LARGE) // 4]
        until(lambda: ask(web.port, status).json["delivered"], what="the record of its delivery")
        # Its keys go after the grace.
        call_id = status.rpartition("=")[2].partition(".")[0]
        kept = redis_server.client.scan_iter(f"wt:*:{call_id}*")
        assert {redis_server.client.ttl(key) <= 60 for key in kept if b":gone:" not in key} == {True}
    finally:
        web.stop()
