"""Workers that are killed: in a handler, before it, one of them or the whole pool."""

import os
import signal
import socket
import sys
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256

import psutil
import pytest
from harness import ask, follow, until
from remains import alive

from wsgi_timeout.store import keys

LEASE = 2.0
#: Every kill here three times; in the slow run twenty.
TIMES = [3, pytest.param(20, marks=pytest.mark.slow)]
#: Seconds from a kill to the client's last byte: what is promised, and what a busy machine may add once.
PROMISED, BUSY = 1.0, 2.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    # A lease that a busy machine keeps: here the pool's parent sees every death.
    return deploy(pool=("--processes", "2"), wait_seconds=40, lease_seconds=15.0)


@pytest.fixture(scope="module")
def hasty(site):
    """A web process that redirects after 0.3 s."""
    web = site.start_web(gateway="wait_seconds=0.3")
    yield web
    web.stop()


@pytest.fixture
def aside():
    """Threads for requests during which something dies."""
    with ThreadPoolExecutor(30) as threads:
        yield threads


def runner(site, tag, runs=1):
    """Return the pid of the worker that runs the last of so many runs, once it does."""
    return int(until(lambda: site.runs(tag)[runs - 1 :], 30, f"run {runs} of {tag}")[0].split()[1])


def killed(pid):
    """Kill a worker; returns when."""
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return at


def ended_at(answer):
    """Wait for an answer in a thread; returns it with the time of its last byte."""
    result = answer()
    return result, time.monotonic()


def two_workers(site):
    """Wait until both workers take calls: what one must do alone takes the time of a start."""

    def taking():
        clients = site.redis.client.client_list()
        waiting = [each for each in clients if each["cmd"] == "blmove" and "b" in each["flags"]]
        return len(waiting) >= 2 and site.redis.client.hlen(keys.leases(site.name)) == 2

    until(taking, 20, "two workers")


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("on", ["the request", "its result URL"])
def test_a_get_is_answered_by_its_second_run(site, hasty, aside, tmp_path, seen, on, times):
    """The client of a GET, on the request itself or on its result URL, gets 200 from the second run."""
    port = site.web.port if on == "the request" else hasty.port
    took = []
    for number in range(times):
        two_workers(site)
        gate, tag = tmp_path / str(number), f"get-{port}-{times}-{number}"
        target = f"/gate?file={gate}&tag={tag}"
        waiting = aside.submit(ended_at, lambda target=target: follow(port, target))
        first = runner(site, tag)
        at = killed(first)
        gate.touch()
        answers, end = waiting.result()
        assert (answers[-1].status, answers[-1].text) == (200, f"passed {tag}\n")
        second = runner(site, tag, 2)
        assert (second != first, len(site.runs(tag))) == (True, 2)
        took.append(end - at)
    seen(f"GET on {on}", took)
    assert sorted(took)[times // 2] <= PROMISED
    assert max(took) <= PROMISED + BUSY


@pytest.mark.parametrize("times", TIMES)
def test_a_post_is_lost_and_says_so(site, aside, seen, times):
    """A POST whose worker is killed ends in a 502 that says so, and never runs again."""
    took = []
    for number in range(times):
        two_workers(site)
        tag = f"post-{times}-{number}"
        target = f"/slow?seconds=50&tag={tag}"
        waiting = aside.submit(ended_at, lambda target=target: ask(site.web.port, target, "POST", body=b"x"))
        at = killed(runner(site, tag))
        answer, end = waiting.result()
        assert (answer.status, "signal" in answer.text) == (502, False)
        site.web.wait_for(f"reference {answer.json['reference']}: .*its worker died while it ran .signal 9")
        assert answer.header("Content-Type") == "application/problem+json"
        took.append(end - at)
    assert [len(site.runs(f"post-{times}-{number}")) for number in range(times)] == [1] * times
    seen("POST", took)
    assert sorted(took)[times // 2] <= PROMISED
    assert max(took) <= PROMISED + BUSY
    assert ask(site.web.port, "/fast").status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no reapers")
def test_a_worker_ends_with_its_reaper(site, hasty, aside):
    """Where the small process between pool and worker is killed, the worker's call runs again elsewhere."""
    two_workers(site)
    waiting = aside.submit(follow, hasty.port, "/slow?seconds=0.7&tag=reaped")
    worker = runner(site, "reaped")
    killed(psutil.Process(worker).ppid())
    assert waiting.result()[-1].status == 200
    assert (runner(site, "reaped", 2) != worker, len(site.runs("reaped"))) == (True, 2)


def test_a_lost_call_shows_on_a_browsers_page(site, aside):
    """The 502 is a page for a browser."""
    headers = {"Accept": "text/html"}
    waiting = aside.submit(ask, site.web.port, "/slow?tag=page&seconds=50", "POST", headers=headers)
    killed(runner(site, "page"))
    answer = waiting.result()
    assert (answer.status, answer.header("Content-Type")) == (502, "text/html; charset=utf-8")
    assert answer.text.startswith("<!doctype html>")


def test_a_large_body_is_whole_in_the_second_run(site, aside, gate, seen):
    """A PUT that runs again reads its body from the beginning, which the first run had read a part of."""
    body = array("Q", range(400_000)).tobytes()
    waiting = aside.submit(ask, site.web.port, f"/hash?tag=put&file={gate}", "PUT", body=body)
    at = killed(runner(site, "put"))
    runner(site, "put", 2)
    gate.touch()
    assert waiting.result().json == {"length": len(body), "sha256": sha256(body).hexdigest()}
    seen("the response", [time.monotonic() - at])


def test_a_response_that_was_begun_breaks_off(site, gate, seen):
    """When a worker dies after the first bytes of a response went out, the response ends in a break."""
    with socket.create_connection(("127.0.0.1", site.web.port), timeout=30) as client:
        client.sendall(f"GET /trickle?tag=begun&file={gate} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = b""
        while b"one\n" not in answer:
            answer += client.recv(65536)
        at = killed(runner(site, "begun"))
        while piece := client.recv(65536):
            answer += piece
        seen("the break", [time.monotonic() - at])
    assert answer.endswith(b"4\r\none\n\r\n")
    until(lambda: ask(site.web.port, "/fast").status == 200, 20, "an answer of a next worker")
    assert len(site.runs("begun")) == 1


def test_a_get_runs_twice_at_most_by_default(site):
    """A GET that kills its worker on every run ends in 502 after two runs, if `max_attempts` is not set."""
    answer = ask(site.web.port, "/dies?tag=dies")
    assert answer.status == 502
    site.web.wait_for(f"reference {answer.json['reference']}: .*signal 9")
    assert len(site.runs("dies")) == 2
    until(lambda: ask(site.web.port, "/fast").status == 200, what="an answer of a next worker")


def test_a_second_run_can_be_forbidden(site):
    """With `max_attempts=1` not even a GET runs again."""
    web = site.start_web(gateway="max_attempts=1")
    try:
        assert ask(web.port, "/dies?tag=once").status == 502
        assert len(site.runs("once")) == 1
    finally:
        web.stop()


def both_frozen_with_a_call(site, aside, method, tags):
    """Freeze both workers with a call each that they do not know of yet; returns the answers to come.

    Redis hands a call to each worker that waits in its BLMOVE. A worker may be frozen outside of one:
    then once more.
    """
    for number in range(10):
        two_workers(site)
        workers = site.pool.workers()
        names = [f"{tag}-{number}" for tag in tags]
        for worker in workers:
            worker.suspend()
        waiting = [aside.submit(ask, site.web.port, f"/fast?tag={name}", method) for name in names]
        deadline = time.monotonic() + 2
        until(lambda: held_calls(site) == [1, 1] or time.monotonic() > deadline)  # noqa: B023
        if held_calls(site) == [1, 1]:
            return workers, names, waiting
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.resume()
        for answer in waiting:
            answer.result()
    raise AssertionError("both workers were never frozen in their BLMOVE")


def held_calls(site):
    """Return how many calls each worker holds."""
    workers = [worker.decode() for worker in site.redis.client.hkeys(keys.leases(site.name))]
    return [site.redis.client.llen(keys.held(worker)) for worker in workers]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_call_that_was_taken_and_not_begun_runs_once_elsewhere(site, aside, seen, method):
    """A worker killed between taking a call and starting it: the call, a POST too, runs once, elsewhere."""
    took = []
    for number in range(3):
        two_workers(site)
        tags = [f"taken-{method}-{number}-{which}" for which in "ab"]
        workers, names, waiting = both_frozen_with_a_call(site, aside, method, tags)
        at = killed(workers[0].pid)
        # On a busy machine it may have been replaced.
        with suppress(psutil.NoSuchProcess):
            workers[1].resume()
        assert [answer.result().status for answer in waiting] == [200, 200]
        took.append(time.monotonic() - at)
        runs = [site.runs(name) for name in names]
        assert [len(run) for run in runs] == [1, 1]
        assert str(workers[0].pid) not in [run[0].split()[1] for run in runs]
    seen(f"{method} taken, not begun", took)
    assert max(took) <= PROMISED + BUSY


def kill_all(pool):
    for process in [psutil.Process(pool.pid), *pool.descendants()]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def kill_parent(pool):
    """Kill the parent alone: its children follow."""
    pool.popen.kill()


@pytest.mark.parametrize(
    ("kill", "lease"),
    [
        (kill_all, LEASE),
        pytest.param(kill_all, 10.0, marks=pytest.mark.slow),
        (kill_parent, LEASE),
    ],
)
@pytest.mark.slow
def test_what_a_dead_pool_ran_is_settled_by_another(deploy, aside, gate, seen, kill, lease):
    """When a whole pool is killed, what it ran, held and had queued is settled by the rules, 15 s later."""
    site = deploy(pool=("--processes", "2", "--threads", "10"), wait_seconds=40, lease_seconds=lease)
    port = site.web.port
    reads, posts = ([f"{kind}{number}" for number in range(10)] for kind in ("read", "post"))
    gets = [aside.submit(ended_at, lambda t=tag: ask(port, f"/gate?file={gate}&tag={t}")) for tag in reads]
    sent = [
        aside.submit(ended_at, lambda t=tag: ask(port, f"/slow?seconds=60&tag={t}", "POST")) for tag in posts
    ]
    until(lambda: len(site.runs()) == 20, what="twenty handlers")
    other = site.start_pool("--processes", "2", "--threads", "10")
    dead, site.pool = site.pool, other
    try:
        family, at = dead.descendants(), time.monotonic()
        kill(dead)
        until(lambda: not any(map(alive, family)), what="the end of its processes")
        gate.touch()
        answers = [waiting.result() for waiting in gets + sent]
    finally:
        dead.stop()
    assert [answer.text for answer, _ in answers[:10]] == [f"passed {tag}\n" for tag in reads]
    assert {answer.status for answer, _ in answers[10:]} == {502}
    assert {answer.json["title"] for answer, _ in answers[10:]} == {"Bad Gateway"}
    assert [len(site.runs(tag)) for tag in reads + posts] == [2] * 10 + [1] * 10
    workers = {str(process.pid) for process in other.workers()}
    assert {site.runs(tag)[1].split()[1] for tag in reads} <= workers
    took = [end - at for _, end in answers]
    seen(f"whole pool, lease {lease:g} s", took)
    assert max(took) <= lease + 5
