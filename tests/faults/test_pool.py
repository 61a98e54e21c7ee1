"""A pool's parent and its children: whom an interrupt is for, and what the parent survives."""

import pytest
from harness import function_workers, joined, until

from wsgi_timeout.client import client

GRACE = 0.3

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def functions(deploy, redis_server):
    options = ("--processes", "1", "--function-processes", "1")
    site = deploy(
        "resisting:stub",
        pool=options,
        secret="any",
        worker_wait=20,
        retry_backoff=0.05,
        interrupt_grace=GRACE,
    )
    until(lambda: function_workers(site.redis, site.name) == 1, 20, "the process for functions")
    with joined(redis_server.url, site.name, site.env):
        import resisting

        yield site, resisting
        client().redis.close()


def test_an_interrupt_is_for_one_attempt(functions):
    """A function that makes an error of its interrupt is retried, and each run has the whole timeout."""
    site, app = functions
    call = app.converts.spawn("converts")
    assert call.get(timeout=20) == 3
    assert len({run.split()[1] for run in site.runs("converts")}) == 1
    assert site.pool.popen.poll() is None
    assert function_workers(site.redis, site.name) == 1
