"""Result URLs as tests use them: what they name, and when their call is ready."""

import re

from harness import ask, until

OURS = r"__wsgi_timeout_call=(fc-[\w-]{22})\.([\w-]{32})&__wsgi_timeout_hop=(\d+)"
MARK = "__wsgi_timeout_"


def call_in(location):
    """Return the id, the token and the hop in a URL of ours."""
    return re.search(OURS, location).groups()


def status_url(location):
    """Return the status URL that belongs to a result URL."""
    return location.replace("__wsgi_timeout_call", "__wsgi_timeout_status").partition("&__wsgi_timeout_hop")[
        0
    ]


def has_ended(port, location):
    return ask(port, status_url(location)).json["state"] == "ended"


def ready_result(port, target, method="GET", **options):
    """Send a slow request, and return its result URL when the result lies there, not yet delivered."""
    first = ask(port, target, method, **options)
    assert first.status == 303, first
    until(lambda: has_ended(port, first.location), what="the end of the call")
    return first.location


def until_delivered(port, location):
    """Wait for the record of a delivery, which follows the last byte that the client got."""
    until(lambda: ask(port, status_url(location)).json["delivered"], what="the delivery")
