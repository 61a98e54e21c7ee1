"""Worker processes that end by themselves, and pools that start after a crash."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import APPS, Pool, ask, until

from wsgi_timeout.store import keys

pytestmark = pytest.mark.usefixtures("nothing_is_left")

#: Its threads begin their work late, as on a machine that does not let them run.
LATE = """
import sys
import threading
import time

from basic import app

def begin_late(_frame, _event, _arg):
    sys.setprofile(None)
    time.sleep(0.1)

threading.setprofile(begin_late)
"""


@pytest.fixture
def aside():
    with ThreadPoolExecutor(4) as threads:
        yield threads


def test_a_process_that_ends_waits_for_a_thread_that_begins_late(deploy, tmp_path):
    """The last call of a process, by `--max-requests`, is run though its thread has yet to begin then."""
    (tmp_path / "late.py").write_text(LATE)
    options = ("--processes", "1", "--threads", "2", "--max-requests", "1")
    site = deploy(str(tmp_path / "late.py:app"), pool=options, wait_seconds=20, worker_wait=20)
    answers = [ask(site.web.port, f"/fast?tag=late{number}", "POST") for number in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert [len(site.runs(f"late{number}")) for number in range(3)] == [1] * 3


def test_a_process_that_ends_is_replaced_at_once(deploy, aside, gate, seen):
    """While the last calls of a process go on, by `--max-requests`, another process takes the next ones."""
    options = ("--processes", "1", "--threads", "4", "--max-requests", "2")
    site = deploy(pool=options, wait_seconds=40, worker_wait=20)
    running = aside.submit(ask, site.web.port, f"/gate?tag=long&file={gate}")
    until(lambda: site.runs("long"), what="its begin")
    assert ask(site.web.port, "/fast?tag=second").status == 200
    began = time.monotonic()
    assert ask(site.web.port, "/fast?tag=third").status == 200
    seen("the next call's response", [time.monotonic() - began])
    assert not running.done()
    assert site.runs("second")[0].split()[1] == site.runs("long")[0].split()[1]
    assert site.runs("third")[0].split()[1] != site.runs("long")[0].split()[1]
    gate.touch()
    assert running.result().text == "passed long\n"


def test_another_target_starts_after_a_crash(deploy, redis_server, seen):
    """A pool whose name a killed one of another target had comes up when the lease is lost, all alone."""
    site = deploy(lease_seconds=1.0)
    site.web.stop()
    site.pool.popen.kill()
    site.pool.popen.wait()
    assert redis_server.client.hlen(keys.leases(site.name)) > 0
    began = time.monotonic()
    pool = Pool("own_server:app", site.name, redis_server.url, "--processes", "1", env=site.env, cwd=APPS)
    try:
        took = time.monotonic() - began
        seen("until it is up, lease 1 s", [took])
        assert took < 20
        assert pool.workers()
    finally:
        pool.stop()
