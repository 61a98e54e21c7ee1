"""What handlers detach from their process: it ends with an interrupted handler, else it is let alone."""

import os
import signal
import sys
import time
from contextlib import suppress

import pytest
from harness import ask, until

TIMEOUT, GRACE = 1.0, 0.5
#: How daemons detach, in tests/apps/leftovers.py.
WAYS = (
    "detach_a_program",
    "detach_a_session",
    "detach_a_fork",
    "detach_a_daemon",
    "detach_from_multiprocessing",
    "detach_a_family",
)

pytestmark = [
    pytest.mark.usefixtures("nothing_is_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="other systems have no reapers"),
]


@pytest.fixture(
    scope="module",
    params=[
        (),
        pytest.param(("--threads", "2"), marks=pytest.mark.slow),
        pytest.param(("--python", sys.executable), marks=pytest.mark.slow),
    ],
    ids=["one thread", "threads", "python"],
)
def site(request, deploy):
    return deploy(
        "leftovers:app",
        pool=("--processes", "2", *request.param),
        wait_seconds=40,
        worker_wait=20,
        timeout=TIMEOUT,
        interrupt_grace=GRACE,
    )


def goes_on(site, tag):
    before = len(site.runs(tag))
    until(lambda: len(site.runs(tag)) > before, 10, f"more of {tag}")


def is_silent(site, tags):
    """Return a function that tells whether nothing came for half a second, ten times a note's pause."""
    seen = []

    def silent():
        seen.append((time.monotonic(), [len(site.runs(tag)) for tag in tags]))
        return any(at < seen[-1][0] - 0.5 and counts == seen[-1][1] for at, counts in seen)

    return silent


def daemons_of_both(site):
    """Have a handler of each of two processes detach a daemon; return their tags by the process's pid."""
    tags = {}

    def both():
        tag = f"well-{len(site.runs())}"
        tags[ask(site.web.port, f"/detach/detach_a_daemon?tag={tag}").json["pid"]] = tag
        return len(tags) == 2

    until(both, 20, "daemons of two processes")
    return tags


def end(site, tag):
    for process in {int(line.split()[1]) for line in site.runs(tag)}:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_what_others_detach_is_no_child_of_the_app(site):
    """A program's exit code is the app's to ask for, and `os.wait` knows of no other children."""
    assert ask(site.web.port, "/status-of-a-program").json == {"code": 7, "other": None}


def test_daemons_end_with_an_interrupted_handler(site):
    """All that it, and those before it in its process, have detached ends; those of other processes go on."""
    tags = daemons_of_both(site)
    assert ask(site.web.port, "/leave/detach_all?tag=ill").status == 504
    interrupted = int(site.runs("ill")[0].split()[1])
    ill = ["ill", *(f"ill-{way}" for way in WAYS)]
    until(is_silent(site, [*ill, tags.pop(interrupted)]), GRACE + 20, "the end of what it had detached")
    assert all(site.runs(tag) for tag in ill)
    [well] = tags.values()
    goes_on(site, well)
    site.pool.popen.send_signal(signal.SIGTERM)
    assert site.pool.popen.wait(20) == 0
    goes_on(site, well)
    for line in site.runs():
        end(site, line.split()[0])
