"""A client that was told of a failure, or got half of a response, and asks for it again."""

import http.client

import pytest
from harness import ask, until
from result_urls import ready_result, status_url

#: More than one wait, by what a busy machine may be late.
SLOW = "seconds=0.5"


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("addresses:app", pool=("--processes", "2"), wait_seconds=0.05)


def fetch(port, target):
    """Return what comes as an answer's status, and whether its body is whole."""
    try:
        return ask(port, target).status, True
    except (http.client.IncompleteRead, ConnectionError):
        return 200, False


@pytest.mark.parametrize(
    ("how", "shown"),
    [
        ("2", (200, False)),
        pytest.param("5000", (200, False), marks=pytest.mark.slow),
        ("raises", (500, True)),
        pytest.param("500", (500, True), marks=pytest.mark.slow),
    ],
)
def test_who_asks_again_reaches_the_app(site, how, shown):
    """What failed is shown once as it was; the same GET again is a new try, of which the app decides."""
    port, tag = site.web.port, f"again{how}"
    result = ready_result(port, f"/fails?tag={tag}&how={how}&{SLOW}")
    assert fetch(port, result) == shown
    until(lambda: ask(port, status_url(result)).json["delivered"], what="the delivery")
    again = ask(port, result)
    assert (again.status, again.location) == (303, f"/fails?tag={tag}&how={how}&{SLOW}")
    assert ask(port, ready_result(port, again.location)).status == 200
    assert len(site.runs(f"{tag}-GET")) == 2


def test_who_has_sent_something_is_told_the_same_again(site):
    """What a POST got half of is never run again by a GET of its result URL."""
    port = site.web.port
    result = ready_result(port, f"/fails?tag=posted&how=2&{SLOW}", "POST")
    assert [fetch(port, result) for _ in range(2)] == [(200, False)] * 2
    assert len(site.runs("posted-POST")) == 1
