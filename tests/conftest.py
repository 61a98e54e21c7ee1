"""Fixtures: a real Redis server per test session, real deployments per module."""

import signal

import pytest
from harness import Deployment, RedisServer


@pytest.fixture(scope="session")
def redis_server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def deploy(redis_server):
    """Return a function that starts a deployment, stopped with the module."""
    started = []

    def start(target="basic:app", **options):
        deployment = Deployment(redis_server, target, **options)
        started.append(deployment)
        return deployment

    yield start
    for deployment in started:
        deployment.stop()


@pytest.fixture
def gate(tmp_path):
    """Return a path that handlers wait for; it exists at the latest when the test ends."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@pytest.fixture
def terminal():
    """Have processes take SIGHUP as under a terminal, where these tests run under `nohup` too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
