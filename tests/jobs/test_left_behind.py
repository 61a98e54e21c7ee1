"""What an interrupted handler leaves behind: no other call sees it, and nothing of it goes on."""

import time

import pytest
from harness import ask, until

TIMEOUT, GRACE = 0.5, 1.0

KINDS = (
    "hold_a_lock",
    "wait_for_a_thread",
    "wait_for_a_pool_of_threads",
    "wait_for_a_process",
    "wait_for_a_program",
    "wait_for_a_coroutine",
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_is_left")]


@pytest.fixture(scope="module", params=[1, 4], ids=["one thread", "threads"])
def site(request, deploy):
    return deploy(
        "leftovers:app",
        pool=("--processes", "1", "--threads", str(request.param), "--spare", "1"),
        wait_seconds=40,
        worker_wait=20,
        timeout=TIMEOUT,
        interrupt_grace=GRACE,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_it_is_left(site, kind):
    """The next call meets a fresh process, and all that the interrupted one started has ended."""
    assert ask(site.web.port, f"/leave/{kind}?tag={kind}").status == 504
    following = ask(site.web.port, "/next").json
    assert (following["free"], following["state"]) == (True, [])
    assert site.runs(kind)
    seen = []

    def silent():
        """Whether nothing came since half a second ago, ten times what lies between two notes."""
        seen.append((time.monotonic(), len(site.runs(kind))))
        return any(at < seen[-1][0] - 0.5 and count == seen[-1][1] for at, count in seen)

    until(silent, GRACE + 10, "the end of what it had started")


def test_a_spare_process_is_loaded_and_takes_no_calls(site):
    """A spare process stands by while another takes calls; a stop ends it too."""
    until(lambda: len(site.pool.workers()) == 2, 20, "the spare one")
    assert ask(site.web.port, "/next").status == 200
    assert site.redis.client.hlen(f"wt:leases:{site.name}") == 1
