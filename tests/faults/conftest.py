"""Fixtures of the fault tests: a Redis of each module's own, and what must not be left after a fault."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest
from faults import measure
from harness import Deployment, RedisServer, until
from test_calls import without_ttl

from wsgi_timeout import keys


@pytest.fixture(scope="module")
def redis_server():
    """A server that a test may kill, fill and look through."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def started():
    """The deployments of a module."""
    return []


@pytest.fixture(scope="module")
def deploy(redis_server, started):
    """Return a function that starts a deployment; with the module they stop, and leave no process behind."""

    def start(target="basic:app", *, server=redis_server, **options):
        deployment = Deployment(server, target, **options)
        started.append(deployment)
        return deployment

    yield start
    with ThreadPoolExecutor() as threads:
        list(threads.map(Deployment.stop, started))
    until(lambda: not processes_of(started), what="the end of every process")


@pytest.fixture
def nothing_is_left(redis_server, started):
    """After the test no process is an orphan, no dead worker holds a call, and every key has its TTL."""
    yield
    until(lambda: not orphans(started), 15, "the end of every process whose parent is gone")
    until(lambda: not held_by_the_dead(redis_server.client), 15, "the recovery of every call")
    assert eternal(redis_server.client) == []


def processes_of(deployments):
    """Return the processes that deployments started, by pid; their environment tells."""
    files = {str(deployment.runs_file) for deployment in deployments}
    found = {}
    for process in psutil.process_iter(["environ", "ppid", "status"]):
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and (process.info["environ"] or {}).get("RUNS_FILE") in files:
            found[process.pid] = process
    return found


def orphans(deployments):
    ours = processes_of(deployments)
    return [process for process in ours.values() if process.info["ppid"] not in {*ours, os.getpid()}]


def alive(process):
    """Return whether a process runs; one that waits to be reaped does not."""
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def held_by_the_dead(client):
    """Return the lists of held calls whose worker has no lease any more."""
    alive = {worker for key in client.scan_iter(keys.leases("*")) for worker in client.hkeys(key)}
    held = client.scan_iter(keys.held("*"))
    return [key for key in held if key.removeprefix(keys.held("").encode()) not in alive]


def eternal(client):
    """Return the keys without a TTL that the table in `keys` does not list as such."""
    listed = without_ttl()
    names = [key.decode() for key in client.scan_iter() if client.ttl(key) == -1]
    return [name for name in names if not any(row.fullmatch(name) for row in listed)]


@pytest.fixture
def seen(request):
    """Return a function that notes seconds for docs/reliability.md; `make test-faults-20` collects them."""

    def note(what, seconds):
        measure.note(request.node, what, seconds)

    return note


def pytest_collection_modifyitems(config, items):
    """While seconds are collected, only the tests that note some run."""
    if measure.FILE:
        timed = [item for item in items if "seen" in item.fixturenames]
        config.hook.pytest_deselected(items=[item for item in items if item not in timed])
        items[:] = timed
