"""`--threads 8`: handlers side by side in one process, each with what is its own."""

import hashlib
import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import ask, raw_request, until

from wsgi_timeout.store import rq_state

TOGETHER = 8
#: In one message with its call; in a stream that fits its buffer; in one that is read while it comes.
SIZES = [100, 400_000, 3_000_000]


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        "threaded:app",
        pool=("--processes", "1", "--threads", str(TOGETHER)),
        wait_seconds=40,
        worker_wait=20,
        buffer=1_000_000,
    )


@pytest.fixture(scope="module")
def at_once(site):
    """A web process that answers 202."""
    web = site.start_web(gateway="wait_for_response=False")
    yield web
    web.stop()


@pytest.fixture
def clients():
    with ThreadPoolExecutor(TOGETHER) as threads:
        yield threads


def content(who, size):
    """Return a first line that names its sender, and bytes that no other one sends."""
    return b"%d\n" % who + random.Random(who).randbytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_eight_handlers_run_at_once_each_with_its_own(site, clients, size):
    """Eight uploads meet in one process: each handler has its environ, its `g`, and its own body, whole."""
    bodies = [content(who, size + who) for who in range(TOGETHER)]

    def send(who):
        target = f"/meet/{who}?size={size}&who={who}"
        return ask(site.web.port, target, "POST", headers={"X-Who": str(who)}, body=bodies[who])

    answers = [answer.json for answer in clients.map(send, range(TOGETHER))]
    for who, answer in enumerate(answers):
        name = str(who)
        assert answer["found"] == [None, None]
        assert answer["left"] == [name, name, name]
        assert answer["told"] == [f"/meet/{who}", f"size={size}&who={who}", name]
        assert answer["sha256"] == hashlib.sha256(bodies[who]).hexdigest()
    assert {answer["process"] for answer in answers} == {worker.pid for worker in site.pool.workers()}
    assert len({answer["thread"] for answer in answers}) == TOGETHER
    assert len({answer["call"] for answer in answers}) == TOGETHER


def test_multithread_is_told_as_it_is(deploy, site):
    """`wsgi.multithread` is true with eight threads, and false with one."""
    one = deploy("threaded:app", pool=("--processes", "1"))
    assert [ask(web.port, "/alone").json["multithread"] for web in (site.web, one.web)] == [True, False]


def test_each_failure_is_its_own(site, clients):
    """Of eight handlers two raise before the head, two after it: their clients see it, no others."""
    ways = ["before", "after", "never", "never"] * 2
    began = len(site.pool.output)

    def get(who):
        request = f"GET /fail/{who}?how={ways[who]} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        return raw_request(site.web.port, request.encode()).decode()

    answers = list(clients.map(get, range(TOGETHER)))
    for who, (way, answer) in enumerate(zip(ways, answers, strict=True)):
        status = "500 INTERNAL SERVER ERROR" if way == "before" else "200 OK"
        assert answer.startswith(f"HTTP/1.1 {status}\r\n"), answer
        assert (f"{who} begins\n" in answer) == (way != "before")
        assert (f"{who} ends\n" in answer) == (way == "never")
        assert answer.endswith("0\r\n\r\n") == (way == "never")
    log = site.pool.output[began:]
    failed = {str(who) for who, way in enumerate(ways) if way != "never"}
    assert set(re.findall(r"ValueError: (\d) fails", log)) == failed
    lines = re.findall(r"^<(\d):(\d+):(\d)>$", log, re.MULTILINE)
    assert sorted(lines) == sorted((str(w), str(n), str(w)) for w in range(TOGETHER) for n in range(100))


def test_neighbours_outlive_a_thread_that_does_not_start(site, at_once, clients, gate):
    """A call that the system has no thread for waits, and ends nobody; alone it goes to another process."""
    (before,) = (worker.pid for worker in site.pool.workers())
    crowd = clients.submit(ask, site.web.port, f"/crowd/full?file={gate}", "POST")
    until(lambda: site.runs("full"), what="a process that is full")
    late = clients.submit(ask, site.web.port, "/alone")
    site.pool.wait_for("no thread can be started")
    gate.touch()
    assert (crowd.result().status, late.result().status) == (200, 200)
    # One that is cancelled while it waits never begins.
    again = gate.with_name("again")
    crowd = clients.submit(ask, site.web.port, f"/crowd/again?file={again}", "POST")
    until(lambda: site.runs("again"), what="a process that is full again")
    said = site.pool.output.count("no thread can be started")
    cancelled = ask(at_once.port, f"/hold/never?file={gate}").json
    until(lambda: site.pool.output.count("no thread can be started") > said, what="its wait for a thread")
    assert ask(at_once.port, cancelled["status_url"], "DELETE").status == 202
    again.touch()
    assert crowd.result().status == 200
    assert ask(site.web.port, "/alone").status == 200
    assert not site.runs("never-begins")
    until(lambda: len(site.pool.workers()) == 1, what="the end of the process that the cancel has replaced")
    [before] = [worker.pid for worker in site.pool.workers()]
    assert ask(site.web.port, "/crowd/for-good", "POST").status == 200
    assert ask(site.web.port, "/alone").status == 200
    assert [worker.pid for worker in site.pool.workers()] != [before]


def test_a_cancel_ends_one_of_eight(site, at_once, clients, gate):
    """One of eight calls in a process is cancelled: it alone is gone, the other seven are delivered whole."""
    urls = [ask(at_once.port, f"/hold/{who}?file={gate}").json for who in range(TOGETHER)]
    for who in range(TOGETHER):
        until(lambda who=who: site.runs(f"{who}-begins"), what=f"the begin of {who}")
    assert len({site.runs(f"{who}-begins")[0].split()[1] for who in range(TOGETHER)}) == 1
    assert ask(at_once.port, urls[3]["status_url"], "DELETE").status == 202
    assert ask(at_once.port, urls[3]["result_url"]).status == 410
    others = [who for who in range(TOGETHER) if who != 3]
    answers = [clients.submit(ask, site.web.port, urls[who]["result_url"]) for who in others]
    gate.touch()
    for who, answer in zip(others, answers, strict=True):
        assert (answer.result().status, answer.result().text) == (200, f"{who} begins\n{who} ends\n")
        until(lambda who=who: site.runs(f"{who}-closed"), what=f"the close of {who}")
    assert [len(site.runs(f"{who}-begins")) for who in range(TOGETHER)] == [1] * TOGETHER
    assert [len(site.runs(f"{who}-closed")) for who in others] == [1] * len(others)


@pytest.mark.slow
def test_a_call_whose_id_lies_in_the_queue_twice_runs_once(deploy, gate, clients):
    """Threads of one process that take the same call's id one after the other do not both run it."""
    site = deploy(pool=("--processes", "1", "--threads", "2"), wait_seconds=40)
    queue, target = rq_state.queue_key(site.name), f"/gate?file={gate}&tag="
    busy = [clients.submit(ask, site.web.port, f"{target}busy-{number}") for number in range(2)]
    until(lambda: all(site.runs(f"busy-{number}") for number in range(2)), what="two that run")
    twice = clients.submit(ask, site.web.port, "/slow?seconds=0.5&tag=twice", "POST")
    until(lambda: site.redis.client.llen(queue) == 1, what="a call in the queue")
    site.redis.client.rpush(queue, site.redis.client.lindex(queue, 0))
    gate.touch()
    assert [call.result().status for call in (*busy, twice)] == [200] * 3
    until(lambda: not site.redis.client.llen(queue), what="an empty queue")
    assert ask(site.web.port, "/fast").status == 200
    assert len(site.runs("twice")) == 1
