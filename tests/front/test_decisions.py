"""Small decisions of the front, without a server."""

import json
from types import SimpleNamespace

import pytest

from wsgi_timeout.front import status_url
from wsgi_timeout.front.large_body import _before_its_call
from wsgi_timeout.settings import Settings


def shown(**found):
    """Return what the status URL shows of a call, and its headers."""
    calls = SimpleNamespace(status=lambda _id: found)
    started = []
    body = status_url.show(calls, "fc-1", "/result", lambda _status, headers: started.append(headers))
    return json.loads(b"".join(body)), dict(started[0])


@pytest.mark.parametrize(
    ("found", "ready", "ended"),
    [
        ({"state": "queued"}, False, False),
        ({"state": "running"}, False, False),
        ({"state": "running", "answering": True}, True, False),
        ({"state": "ended"}, True, True),
    ],
)
def test_a_status_says_when_a_result_can_be_fetched(found, ready, ended):
    """A result is ready from the first byte of its response on; until the end the status says when to ask."""
    body, headers = shown(**found)
    assert body["ready"] is ready
    assert ("Retry-After" in headers) is not ended


@pytest.mark.parametrize(("length", "bytes_before"), [(None, 1000), (999, 1000), (1000, 1000), (1001, 100)])
def test_how_much_of_a_body_comes_before_its_call(length, bytes_before):
    """A body of up to `max_spooled_body` is stored whole before its call; of a larger one, a buffer full."""
    settings = Settings(buffer=100, max_spooled_body=1000)
    assert _before_its_call(SimpleNamespace(length=length), settings) == bytes_before
