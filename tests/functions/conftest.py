"""A deployment with functions; this process spawns and gets calls, too."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from function_processes import PROCESSES, SECRET
from harness import APPS, Pool, function_workers, joined, until

from wsgi_timeout import gather


@pytest.fixture(scope="module")
def site(deploy):
    options = ("--processes", "1", "--function-processes", str(PROCESSES))
    site = deploy("spawned:stub", pool=options, secret=SECRET, worker_wait=10)
    until(lambda: function_workers(site.redis, site.name) == PROCESSES, 45, "the processes for functions")
    return site


@pytest.fixture(scope="module")
def here(site):
    """This process spawns and gets calls, too."""
    with joined(site.redis.url, site.name, site.env):
        yield


@pytest.fixture(scope="module")
def app(here):
    import spawned

    return spawned


@pytest.fixture
def busy(app, site, gate):
    """All processes for functions have something to do until the test ends."""
    calls = [app.held.spawn(str(gate), f"busy-{gate.parent.name}") for _ in range(PROCESSES)]
    until(lambda: len(site.runs(f"busy-{gate.parent.name}")) == PROCESSES, what="all processes at work")
    yield calls
    gate.touch()
    gather(*calls)


@pytest.fixture(scope="module")
def pools(site):
    """One pool with one process for functions, one with one process of two threads, and no pool."""
    names = {kind: f"{site.name}-{kind}" for kind in ("single", "threads", "none")}
    kinds = {"single": (), "threads": ("--threads", "2")}
    one = ("--processes", "1", "--function-processes", "1")
    pools = [
        Pool("spawned:stub", names[kind], site.redis.url, *one, *more, env=site.env, cwd=APPS, wait=False)
        for kind, more in kinds.items()
    ]
    for pool in pools:
        pool.wait_until_ready()
    yield names
    for pool in pools:
        pool.stop()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as executor:
        yield executor
