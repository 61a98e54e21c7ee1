"""Calls that wait while no worker is there, and what reaches a worker in the moment of its death."""

import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from harness import APPS, Gunicorn, Pool, ask, follow, until

from wsgi_timeout.store import keys

LEASE = 2.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"))


@pytest.fixture
def aside():
    with ThreadPoolExecutor(20) as threads:
        yield threads


def lone_web(site, name):
    """Start a web process for a name that no worker serves."""
    app = f"wsgi_timeout:gateway('basic:app', name={name!r}, worker_wait=1)"
    return Gunicorn(app, site.redis.url, env=site.env, cwd=APPS)


def begun(site, tag):
    return until(lambda: site.runs(tag), 20, f"the begin of {tag}")


def kill(pool):
    for process in (psutil.Process(pool.pid), *pool.workers()):
        process.kill()


def test_without_a_worker_a_request_is_refused(site, seen):
    """With no live worker a request gets 503 after `worker_wait`, with the command that starts one."""
    web = lone_web(site, f"{site.name}-nobody")
    try:
        ask(web.port, "/fast?__wsgi_timeout_call=")  # it is up
        began = time.monotonic()
        answer = ask(web.port, "/fast?tag=nobody")
        took = time.monotonic() - began
        seen("over its worker_wait of 1 s", [took - 1])
        assert 1 <= took < 4
        assert (answer.status, answer.header("Retry-After")) == (503, "5")
        assert "`wsgi-timeout worker " in answer.json["detail"]
        assert not list(site.redis.client.scan_iter(match=f"rq:queue:wt:{site.name}-nobody"))
    finally:
        web.stop()


def test_a_first_worker_is_waited_for(site, aside):
    """A request that comes just before the first worker is answered by it."""
    name = f"{site.name}-late"
    app = f"wsgi_timeout:gateway('basic:app', name={name!r}, worker_wait=30)"
    web = Gunicorn(app, site.redis.url, env=site.env, cwd=APPS)
    pool = None
    try:
        ask(web.port, "/fast?__wsgi_timeout_call=")  # it is up
        early = aside.submit(ask, web.port, "/fast?tag=early")
        pool = Pool("basic:app", name, site.redis.url, env=site.env, cwd=APPS)
        assert early.result().text == "fast early\n"
    finally:
        web.stop()
        if pool:
            pool.stop()


@pytest.mark.slow
def test_what_is_queued_outlives_all_workers(deploy, aside, gate, seen):
    """Calls queued when the only pool is killed wait, redirected at their pace; the next runs each once."""
    site = deploy(pool=("--processes", "1"), wait_seconds=1, lease_seconds=LEASE)
    port = site.web.port
    began = time.monotonic()
    running = aside.submit(follow, port, f"/gate?tag=running&file={gate}")
    begun(site, "running")
    tags = [f"queued{number}" for number in range(5)]
    waiting = [aside.submit(follow, port, f"/fast?tag={tag}", "POST") for tag in tags]
    until(lambda: site.redis.client.llen(f"rq:queue:wt:{site.name}") == 5, what="a queue")
    dead = site.pool
    kill(dead)
    gate.touch()
    # Until its lease is lost nobody knows; after that a new request is refused.
    refused = until(
        lambda: (answer := ask(port, "/fast?tag=new")).status == 503 and answer, LEASE + 10, "a refusal"
    )
    assert "`wsgi-timeout worker " in refused.json["detail"]
    assert not any(future.done() for future in waiting)
    came = time.monotonic()
    site.pool = site.start_pool("--processes", "1")
    dead.stop()
    chains = [future.result() for future in (running, *waiting)]
    seen("from a pool's start to the last answer", [time.monotonic() - came])
    texts = ["passed running\n", *(f"fast {tag}\n" for tag in tags)]
    assert [chain[-1].text for chain in chains] == texts
    # One 303 for each second of the wait, and no more.
    assert max(map(len, chains)) <= time.monotonic() - began + 2
    assert [len(site.runs(tag)) for tag in ("running", *tags)] == [2, 1, 1, 1, 1, 1]


@pytest.mark.slow
def test_a_call_that_nobody_comes_for_ends(deploy, aside, gate, seen):
    """With no worker for `queue_ttl` a queued call ends, for its waiters and for polls, and never begins."""
    site = deploy(
        pool=("--processes", "1"), gateway="queue_ttl=2", wait_seconds=1, lease_seconds=LEASE, worker_wait=20
    )
    port = site.web.port
    later = site.start_web(gateway="wait_for_response=False, queue_ttl=2")
    try:
        running = aside.submit(follow, port, f"/hash?tag=running&file={gate}", "POST", body=b"x")
        begun(site, "running")
        asked = time.monotonic()
        waiting = aside.submit(follow, port, "/fast?tag=waits", "POST")
        urls = ask(later.port, "/fast?tag=looks", "POST").json
        dead = site.pool
        kill(dead)
        answer = waiting.result()[-1]
        seen("after its queue_ttl of 2 s", [time.monotonic() - asked - 2])
        assert (answer.status, "longer than" in answer.json["detail"]) == (504, True)
        look = until(
            lambda: (status := ask(later.port, urls["status_url"]).json)["state"] == "ended" and status, 5
        )
        assert (look["outcome"], look["attempts"]) == ("timeout", 0)
        assert ask(later.port, urls["result_url"]).status == 504
        site.pool = site.start_pool("--processes", "1")
        dead.stop()
        assert running.result()[-1].status == 502
        assert ask(port, "/fast?tag=next").status == 200
        assert [len(site.runs(tag)) for tag in ("waits", "looks", "next")] == [0, 0, 1]
    finally:
        later.stop()


@pytest.fixture
def forked(deploy, redis_server):
    """A deployment whose worker has left a process behind, which holds its connections open."""
    others = ids(redis_server.client)
    site = deploy(
        "faulty:app",
        pool=("--processes", "1", "--threads", "2"),
        wait_seconds=30,
        worker_wait=20,
        lease_seconds=LEASE,
    )
    site.others = others
    child = psutil.Process(ask(site.web.port, "/forks?tag=forks").json["child"])
    yield site
    child.kill()


def test_a_child_of_a_dead_worker_takes_nothing(forked, seen):
    """What Redis hands to a dead worker, whose connection another process holds, goes to the next one."""
    client = forked.redis.client
    (worker,) = forked.pool.workers()
    (name,) = client.hkeys(keys.leases(forked.name))
    # Its next look for calls begins, and goes on in the name of a dead one.
    until(lambda: blocked(forked) == [0], what="its BLMOVE")
    worker.kill()
    until(lambda: not client.hexists(keys.leases(forked.name), name), what="its funeral")
    at = time.monotonic()
    assert ask(forked.web.port, "/fast?tag=taken", "POST").status == 200
    seen("until the response", [time.monotonic() - at])
    assert len(forked.runs("taken")) == 1


def test_a_child_of_a_stopped_worker_takes_nothing(forked, seen):
    """A worker that stops gives its connections up, also those that another process holds open."""
    old = forked.pool
    until(lambda: blocked(forked) == [0], what="its BLMOVE")
    old.popen.terminate()
    old.popen.wait(10)
    assert blocked(forked) == []
    forked.pool = forked.start_pool("--processes", "1")
    old.stop()
    at = time.monotonic()
    assert ask(forked.web.port, "/fast?tag=next", "POST").status == 200
    seen("until the response", [time.monotonic() - at])
    assert len(forked.runs("next")) == 1


def ids(client):
    return {one["id"] for one in client.client_list()}


def blocked(site):
    """Return whether a BLMOVE of the deployment waits, and the seconds since it began."""
    found = [one for one in site.redis.client.client_list() if one["id"] not in site.others]
    return [int(one["idle"]) for one in found if one["cmd"] == "blmove" and "b" in one["flags"]]
