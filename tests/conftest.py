"""Fixtures: a real Redis server per test session, real deployments per module."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import measure
from harness import Deployment, RedisServer, until
from remains import eternal, held_by_the_dead, orphans, processes_of


@pytest.fixture(scope="session")
def redis_server():
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium."""
    # Few tests need it, and Selenium is slow to import.
    from chromium import start_chromium

    browser = start_chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.quit()


@pytest.fixture
def gate(tmp_path):
    """Return a path that handlers wait for; it exists at the latest when the test ends."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@pytest.fixture
def seen(request):
    """Return a function that notes seconds for docs/reliability.md; `make test-faults-20` collects them."""
    return lambda what, seconds: measure.note(request.node, what, seconds)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config, items):
    """Mark what drives Chromium; while seconds are collected, only the tests that note some run."""
    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker("browser")
    if measure.FILE:
        timed = [item for item in items if "seen" in item.fixturenames]
        config.hook.pytest_deselected(items=[item for item in items if item not in timed])
        items[:] = timed


@pytest.fixture
def terminal():
    """Have processes take SIGHUP as under a terminal, where these tests run under `nohup` too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
