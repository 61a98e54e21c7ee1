"""A Redis of each module's own, which a fault test may kill, fill and look through."""

import pytest
from faults.proxy import Proxy
from harness import RedisServer


@pytest.fixture(scope="module")
def redis_server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def proxy(redis_server, tmp_path_factory):
    """The way to that Redis, which a test may cut."""
    proxy = Proxy(redis_server, tmp_path_factory.mktemp("proxy") / "s")
    yield proxy
    proxy.close()
