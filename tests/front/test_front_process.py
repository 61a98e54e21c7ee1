"""What one web process holds for its requests, and gives back."""

import os
import re
import signal
import time

import pytest
from harness import APPS, Gunicorn, ask, function_workers, joined, until

from wsgi_timeout.errors import WorkerLost
from wsgi_timeout.functions.client import client
from wsgi_timeout.store import keys

MAX_WAITING = 3
#: Seconds after which a place is free that nobody gave back.
SOON = 5.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), wait_seconds=20, max_waiting=MAX_WAITING)


# -- responses that never go out


@pytest.fixture(scope="module")
def rude(site):
    """A host whose `after_request` raises, or answers with something else."""
    env = {**site.env, "BLUEPRINT_NAME": site.name}
    web = Gunicorn("rude_host:host", site.redis.url, env=env, cwd=APPS)
    yield web
    web.stop()


@pytest.mark.parametrize(
    ("after", "status", "text"), [("raises", 500, "Internal Server Error"), ("replaces", 200, "another\n")]
)
@pytest.mark.parametrize("target", ["/b/fast", "/b/trickle"])
def test_a_response_that_a_host_drops_gives_its_place_back(
    site, rude, gate, seen, target, after, status, text
):
    """When a host's `after_request` raises, or answers with something else, the place is soon free again."""
    gate.touch()
    there = set(site.redis.client.scan_iter(keys.call("*")))
    # What raises is seen at once.
    patience = SOON if after == "replaces" else 0
    for number in range(2 * MAX_WAITING):
        url = f"{target}?tag={after}-{number}&file={gate}&after={after}"
        answer = until(lambda url=url: [a for a in [ask(rude.port, url)] if a.status != 503], patience)[0]
        assert answer.status == status
        assert text in answer.text
    dropped = time.monotonic()
    until(lambda: ask(rude.port, "/b/fast").text == "fast \n", SOON)
    seen("until a place was free", [time.monotonic() - dropped])
    # Nobody has its result URL: nothing of it stays.
    until(lambda: set(site.redis.client.scan_iter(keys.call("*"))) <= there, SOON, "the end of their records")
    assert not re.search(r"wsgi_timeout\S*\.py", rude.output)


def test_a_response_that_a_host_wraps_is_whole(site, rude, gate):
    """What a host makes of a response's own iterable goes out to its end, and then the place is free."""
    gate.touch()
    for _ in range(2 * MAX_WAITING):
        url = f"/b/trickle?file={gate}&after=wraps"
        answer = until(lambda url=url: [a for a in [ask(rude.port, url)] if a.status != 503], SOON)[0]
        assert answer.text == "ONE\nTWO\n"


# -- the watch, in a web process whose pool is gone

LEASE = 1.0


@pytest.fixture
def alone(deploy, redis_server):
    """A stub's deployment; and what kills its pool, when its web process has begun to serve."""
    options = ("--processes", "1", "--function-processes", "1")
    site = deploy("spawned:stub", pool=options, secret="any", lease_seconds=LEASE, worker_wait=1)
    until(lambda: function_workers(redis_server, site.name) == 1, what="the process for functions")
    assert ask(site.web.port, "/status/fc-x").status == 500

    def kill():
        for process in (*site.pool.workers(), site.pool.popen):
            os.kill(process.pid, signal.SIGKILL)
        site.pool.popen.wait()

    return site, kill


def test_a_function_of_a_dead_pool_is_settled_by_a_web_process(alone, redis_server, gate, seen):
    """When the only pool is killed, a web process gives up the function that it ran, and its lease."""
    site, kill = alone
    with joined(redis_server.url, site.name, site.env):
        import spawned

        call = spawned.held.spawn(str(gate))
        until(lambda: site.runs("held"), what="its begin")
        began = time.monotonic()
        kill()
        with pytest.raises(WorkerLost, match="its worker died while it ran"):
            call.get(timeout=15)
        seen(f"WorkerLost, lease {LEASE:g} s", [time.monotonic() - began])
        client().redis.close()
    assert function_workers(redis_server, site.name) == 0


def test_the_watch_outlives_what_it_cannot_read(alone, redis_server):
    """Nonsense in a worker's description is logged once, and the watch goes on: it settles that worker."""
    site, kill = alone
    kill()
    until(lambda: not redis_server.client.exists(keys.leases(site.name)), what="the end of their leases")
    redis_server.client.hset(keys.worker("nonsense"), "mounts", "{")
    redis_server.client.hset(keys.leases(site.name), "nonsense", 1)
    site.web.wait_for("description: unexpected.*(?s:.*)JSONDecodeError")
    until(lambda: not redis_server.client.exists(keys.leases(site.name)), what="the end of its lease")
    assert site.web.output.count("description: unexpected") == 1
    assert ask(site.web.port, "/status/fc-x").status == 503
