"""A Redis of each module's own, which a fault test may kill, fill and look through."""

import pytest
from harness import RedisServer


@pytest.fixture(scope="module")
def redis_server():
    server = RedisServer()
    yield server
    server.close()
