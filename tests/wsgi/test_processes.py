"""Handlers that fork, start programs and set timers: the worker stays the one process that it is."""

import os
import signal
import time

import pytest
from harness import APP_PYTHON, ask, function_workers, until

#: What each handler answers.
ANSWERS = {
    "/child-exits": "3",
    "/child-exits-with-words": "1",
    "/child-raises": "1",
    "/child-returns": "0",
    "/child-streams": "0",
    "/child-ends": "5",
    "/multiprocesses": "from a child 0",
    "/pool-of-processes": "[1, 2]",
    "/terminates-a-child": str(-signal.SIGTERM),
    "/interrupts-a-program": str(-signal.SIGINT),
    "/user-signal-to-a-program": str(-signal.SIGUSR2),
    "/event-loop": "b'hi\\n'",
    "/alarm": "True",
    "/thread-exits": "False",
}


@pytest.fixture(scope="module", params=[1, 2], ids=["one thread", "two threads"])
def site(deploy, request):
    options = ("--processes", "1", "--threads", str(request.param))
    return request.param, deploy("wsgi_processes:app", pool=options, wait_seconds=20)


@pytest.mark.parametrize("path", ANSWERS)
def test_a_handler_uses_its_process(site, path):
    """The answer is the handler's own, given once; what it has forked is gone, and takes no calls."""
    threads, deployment = site
    (worker,) = deployment.pool.workers()
    answer = ask(deployment.web.port, path)
    if threads > 1 and path == "/alarm":
        assert answer.status == 500  # handlers of signals are set in the main thread, where none of ours runs
    else:
        assert answer.text == ANSWERS[path] + "\n"
    # The app may have a process of its own, which stays.
    until(lambda: len(worker.children()) == bool(APP_PYTHON), what="the end of its children")
    until(lambda: not any(app.children() for app in worker.children()), what="the end of the app's children")
    assert [child.pid for child in deployment.pool.workers()] == [worker.pid]


def test_a_worker_passes_interrupts_over(site):
    """SIGINT, as from a terminal's Ctrl-C, ends no worker: its parent decides."""
    _, deployment = site
    (worker,) = deployment.pool.workers()
    os.kill(worker.pid, signal.SIGINT)
    assert ask(deployment.web.port, "/child-ends").text == "5\n"
    assert [child.pid for child in deployment.pool.workers()] == [worker.pid]


@pytest.fixture(scope="module")
def functions(deploy):
    if APP_PYTHON:
        pytest.skip("functions run under the Python that has wsgi-timeout")
    options = ("--processes", "1", "--function-processes", "1")
    site = deploy("wsgi_processes:stub", pool=options, secret="of these tests", wait_seconds=20)
    until(lambda: function_workers(site.redis, site.name) == 1, 20, "the process for functions")
    return site


@pytest.mark.parametrize("path", ["/child-exits", "/child-raises", "/child-returns", "/multiprocesses"])
def test_a_function_forks(functions, path):
    """A function's value is its own; what it has forked ends where it leaves the function."""
    before = {child.pid for child in functions.pool.descendants()}
    assert ask(functions.web.port, path).text == ANSWERS[path]
    assert {child.pid for child in functions.pool.descendants()} == before


def test_a_pool_ends_soon_after_forks(deploy):
    """Nothing that a handler forked keeps the pool from its end."""
    site = deploy("wsgi_processes:app", pool=("--processes", "1"), wait_seconds=20)
    for path in ("/child-exits", "/child-returns", "/child-raises"):
        assert ask(site.web.port, path).status == 200
    began = time.monotonic()
    assert site.pool.stop() == 0
    assert time.monotonic() - began < 5
