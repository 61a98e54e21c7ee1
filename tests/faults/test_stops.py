"""Pools that are told to stop: what runs, what waits, and what does not end in time."""

import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from harness import APPS, Pool, ask, until

from wsgi_timeout.store import keys

LEASE = 2.0

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_is_left")]


@pytest.fixture
def aside():
    with ThreadPoolExecutor(20) as threads:
        yield threads


def begun(site, tag, runs=1):
    """Return the pid of the worker that runs the last of so many runs, once it does."""
    return int(until(lambda: site.runs(tag)[runs - 1 :], 20, f"run {runs} of {tag}")[0].split()[1])


def replaced(site, *options):
    """Start another pool for a deployment; returns the old one, and when it was told to stop."""
    old, site.pool = site.pool, site.start_pool(*options)
    old.popen.terminate()
    return old, time.monotonic()


@pytest.mark.parametrize("threads", ["1", "4"])
def test_a_stop_finishes_what_runs(deploy, aside, gate, seen, threads):
    """TERM lets running calls end, and others take what waits; each runs once and is delivered."""
    options = ("--processes", "2", "--threads", threads)
    site = deploy(pool=options, wait_seconds=40, worker_wait=20, lease_seconds=LEASE)
    port, slots = site.web.port, 2 * int(threads)
    tags = [f"runs{number}" for number in range(slots)]
    running = [aside.submit(ask, port, f"/gate?file={gate}&tag={tag}", "GET") for tag in tags]
    until(lambda: len(site.runs()) == slots, what="a handler in each place")
    waiting = [aside.submit(ask, port, f"/fast?tag=waits{number}", "POST") for number in range(5)]
    until(lambda: site.redis.client.llen(f"rq:queue:wt:{site.name}") == 5, what="a queue")
    old, _ = replaced(site, *options)
    assert [answer.result().text for answer in waiting] == [f"fast waits{n}\n" for n in range(5)]
    assert old.popen.poll() is None
    gate.touch()
    opened = time.monotonic()
    assert [answer.result().text for answer in running] == [f"passed {tag}\n" for tag in tags]
    assert old.popen.wait(10) == 0
    seen("from the last call's end to the pool's", [time.monotonic() - opened])
    old.stop()
    assert len(site.runs()) == slots + 5


@pytest.mark.parametrize("again", [False, True], ids=["when its time is up", "at a second TERM"])
def test_what_does_not_end_in_time_is_settled(deploy, aside, gate, seen, again):
    """What still runs after `graceful_timeout`, or at a second TERM, is settled by the rules at once."""
    options = ("--processes", "3", "--graceful-timeout", "30" if again else "1")
    site = deploy(pool=options, wait_seconds=40, worker_wait=20, lease_seconds=LEASE)
    port = site.web.port
    get = aside.submit(ask, port, f"/gate?file={gate}&tag=get")
    post = aside.submit(ask, port, "/slow?seconds=60&tag=post", "POST")
    first = begun(site, "get")
    begun(site, "post")
    old, at = replaced(site, *options)
    if again:
        # Two that come at once are one to the system: the idle worker goes when the first was heard.
        until(lambda: len(old.workers()) == 2, what="the end of its idle worker")
        old.popen.terminate()
    answer = post.result()
    seen("the POST's 502", [time.monotonic() - at])
    assert (answer.status, "interrupted" in answer.json["detail"]) == (502, True)
    assert begun(site, "get", 2) != first
    gate.touch()
    assert get.result().text == "passed get\n"
    assert old.popen.wait(10) == 0
    assert time.monotonic() - at < 6
    old.stop()
    assert [len(site.runs(tag)) for tag in ("get", "post")] == [2, 1]


def test_a_stopped_process_keeps_nothing_it_has_not_begun(deploy, aside, gate, seen):
    """A call that reaches a process with its stop goes to another, though a neighbour there runs on."""
    site = deploy(pool=("--processes", "2", "--threads", "2"), wait_seconds=20, worker_wait=20)
    client, port = site.redis.client, site.web.port
    until(lambda: client.hlen(keys.leases(site.name)) == 2, 20, "two workers")
    neighbour = aside.submit(ask, port, f"/gate?tag=neighbour&file={gate}")
    stopped = psutil.Process(begun(site, "neighbour"))
    others = [worker for worker in site.pool.workers() if worker != stopped]
    for number in range(5):
        for worker in (stopped, *others):
            worker.suspend()
        waiting = [aside.submit(ask, port, f"/fast?tag=held{number}{which}", "POST") for which in "ab"]
        held = [keys.held(worker.decode()) for worker in client.hkeys(keys.leases(site.name))]
        deadline = time.monotonic() + 2
        while not (both := sum(map(client.llen, held)) == 3) and time.monotonic() < deadline:
            time.sleep(0.01)
        if both:
            stopped.terminate()
        at = time.monotonic()
        for worker in (stopped, *others):
            worker.resume()
        assert [answer.result().status for answer in waiting] == [200, 200]
        took = time.monotonic() - at
        assert [len(site.runs(f"held{number}{which}")) for which in "ab"] == [1, 1]
        if both:
            break
    assert both
    seen("until both responses", [took])
    assert not neighbour.done()
    gate.touch()
    assert neighbour.result().text == "passed neighbour\n"


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 6))])
@pytest.mark.slow
def test_a_stop_while_workers_start_is_heard_by_all(redis_server, seen, workers):
    """A pool that is told to stop while it forks its workers ends at once, and leaves none."""
    took = []
    for _ in range(3):
        pool = Pool("basic:app", "starting", redis_server.url, "--processes", "6", cwd=APPS, wait=False)
        until(lambda pool=pool: len(pool.workers()) >= workers, what="its workers")
        began = time.monotonic()
        pool.popen.terminate()
        assert pool.popen.wait(15) == 0
        took.append(time.monotonic() - began)
        pool.stop()
    seen("until the pool's end", took)
    assert max(took) < 5
