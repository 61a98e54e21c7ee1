"""What one web process holds for its requests, and gives back."""

import re

import pytest
from harness import APPS, Gunicorn, ask, until

MAX_WAITING = 3
#: Seconds after which a place is free that nobody gave back.
SOON = 5.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), wait_seconds=20, max_waiting=MAX_WAITING)


# -- responses that never go out


@pytest.fixture(scope="module")
def rude(site):
    """A host whose `after_request` raises, or answers with something else."""
    env = {**site.env, "BLUEPRINT_NAME": site.name}
    web = Gunicorn("rude_host:host", site.redis.url, env=env, cwd=APPS)
    yield web
    web.stop()


@pytest.mark.parametrize(
    ("after", "status", "text"), [("raises", 500, "Internal Server Error"), ("replaces", 200, "another\n")]
)
@pytest.mark.parametrize("target", ["/b/fast", "/b/trickle"])
def test_a_response_that_a_host_drops_gives_its_place_back(site, rude, gate, target, after, status, text):
    """When a host's `after_request` raises, or answers with something else, the place is soon free again."""
    gate.touch()
    # What raises is seen at once.
    patience = SOON if after == "replaces" else 0
    for number in range(2 * MAX_WAITING):
        url = f"{target}?tag={after}-{number}&file={gate}&after={after}"
        answer = until(lambda url=url: [a for a in [ask(rude.port, url)] if a.status != 503], patience)[0]
        assert answer.status == status
        assert text in answer.text
    until(lambda: ask(rude.port, "/b/fast").text == "fast \n", SOON)
    # Nobody has its result URL: nothing of it stays.
    until(lambda: not list(site.redis.client.scan_iter("wt:call:*")), SOON, "the end of their records")
    assert not re.search(r"wsgi_timeout\S*\.py", rude.output)


def test_a_response_that_a_host_wraps_is_whole(site, rude, gate):
    """What a host makes of a response's own iterable goes out to its end, and then the place is free."""
    gate.touch()
    for _ in range(2 * MAX_WAITING):
        url = f"/b/trickle?file={gate}&after=wraps"
        answer = until(lambda url=url: [a for a in [ask(rude.port, url)] if a.status != 503], SOON)[0]
        assert answer.text == "ONE\nTWO\n"
