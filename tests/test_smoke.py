"""One request through all of it."""

import requests


def test_a_request_is_answered_by_the_app(deploy):
    """A request that finishes within the wait gets the app's own response."""
    answer = requests.get(deploy().url + "/fast", params={"tag": "one"}, timeout=10)
    assert (answer.status_code, answer.text) == (200, "fast one\n")
