"""A pool's parent and its children: whom an interrupt is for, and what the parent survives."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from faults.proxy import Proxy
from harness import ask, follow, function_workers, joined, until

from wsgi_timeout.client import client

GRACE = 0.3
#: Of web calls, and of functions that do not say otherwise.
TIMEOUT = 1.5

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def proxy(redis_server, tmp_path_factory):
    proxy = Proxy(redis_server, tmp_path_factory.mktemp("proxy") / "s")
    yield proxy
    proxy.close()


def start(deploy, proxy, threads):
    """Start two processes for web calls, and one for functions."""
    options = ("--processes", "2", "--function-processes", "1", "--threads", str(threads))
    site = deploy(
        "resisting:stub",
        server=proxy,
        pool=options,
        secret="any",
        wait_seconds=30,
        worker_wait=20,
        timeout=TIMEOUT,
        retry_backoff=0.05,
        interrupt_grace=GRACE,
    )
    until(lambda: function_workers(site.redis, site.name) == 1, 20, "the process for functions")
    return site


@pytest.fixture(scope="module")
def site(deploy, proxy):
    return start(deploy, proxy, 1)


@pytest.fixture(scope="module")
def threaded(deploy, proxy):
    return start(deploy, proxy, 4)


@contextmanager
def functions_of(site):
    """Give what is imported from the app, to spawn its functions."""
    with joined(site.redis.url, site.name, site.env):
        import resisting

        yield resisting
        client().redis.close()


@pytest.fixture
def aside():
    with ThreadPoolExecutor(10) as threads:
        yield threads


def begun(site, tag):
    """Return the pid of the worker that runs a handler, once it does."""
    return int(until(lambda: site.runs(tag), what=f"the begin of {tag}")[0].split()[1])


def test_an_interrupt_is_for_one_attempt(site):
    """A function that makes an error of its interrupt is retried, and each run has the whole timeout."""
    with functions_of(site) as functions:
        assert functions.converts.spawn("converts").get(timeout=20) == 3
    # The same process ran all three.
    assert len({run.split()[1] for run in site.runs("converts")}) == 1
    assert site.pool.popen.poll() is None


@pytest.mark.parametrize("which", ["site", "threaded"])
def test_what_ended_in_time_is_not_lost_with_redis_away(request, proxy, aside, gate, which):
    """A handler that ends within its timeout is answered with its result, though Redis comes back later."""
    site, sizes = request.getfixturevalue(which), (1, 3_000_000)
    pages = [f"/held?file={gate}&tag=page&size={size}" for size in sizes]
    answers = [aside.submit(follow, site.web.port, page, "POST") for page in pages]
    with functions_of(site) as functions:
        call = functions.held.spawn(str(gate), "call", sizes[1])
        until(lambda: (len(site.runs("page")), len(site.runs("call"))) == (2, 1), what="all at work")
        began = time.monotonic()
        workers = {process.pid for process in site.pool.workers()}
        proxy.refuse()
        gate.touch()
        until(lambda: time.monotonic() - began > TIMEOUT + GRACE + 0.5)
        proxy.heal()
        assert len(call.get(timeout=20)) == sizes[1]
    chains = [waiting.result() for waiting in answers]
    assert [(chain[-1].status, len(chain[-1].body)) for chain in chains] == [(200, size) for size in sizes]
    assert {process.pid for process in site.pool.workers()} == workers


def test_what_goes_on_after_its_response_has_a_deadline(site):
    """A handler that hangs when all of its response is delivered is interrupted at its deadline."""
    answer = ask(site.web.port, "/goes-on?tag=on", "POST")
    assert (answer.status, answer.text) == (200, "all of it\n")
    assert not site.runs("on-finally")
    worker = begun(site, "on")
    until(lambda: site.runs("on-finally"), what="its finally")
    taken = [float(site.runs(tag)[0].split()[2]) for tag in ("on", "on-finally")]
    assert TIMEOUT - 0.1 <= taken[1] - taken[0] < TIMEOUT + 2
    assert worker in {process.pid for process in site.pool.workers()}
