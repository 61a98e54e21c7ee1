"""The calls of one name, on the session's Redis."""

import pytest
from call_steps import fresh_calls

#: The name whose calls these tests make.
NAME = "calls"


@pytest.fixture
def calls(redis_server):
    """The calls of one name, with one live worker, in a database of their own."""
    with fresh_calls(redis_server, NAME) as calls:
        yield calls
