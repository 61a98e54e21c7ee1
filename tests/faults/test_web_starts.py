"""A web process that starts while Redis is away or frozen."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import ask, follow, until

#: Seconds until a new request is refused: `worker_wait`, or two, and what a busy machine adds.
PROMISED = 6.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
def aside():
    with ThreadPoolExecutor(10) as threads:
        yield threads


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), lease_seconds=5, worker_wait=1)


@pytest.fixture
def late(site):
    """Return a function that starts one more web process."""
    started = []

    def start():
        started.append(site.start_web())
        return started[-1]

    yield start
    for web in started:
        web.stop()


def test_a_result_url_waits_for_a_redis_that_is_away(site, late, redis_server, aside, gate, seen):
    """An accepted call is never refused: its result URL is redirected until Redis is back, then answered."""
    url = ask(site.web.port, f"/gate?tag=accepted&file={gate}").location
    until(lambda: site.runs("accepted"), what="its begin")
    redis_server.stop(signal.SIGKILL)
    web = late()
    for _ in range(2):
        answer = ask(web.port, url)
        assert answer.status == 303
        url = answer.location
    waiting = aside.submit(follow, web.port, url)
    redis_server.start()
    back = time.monotonic()
    gate.touch()
    answers = waiting.result()
    seen("the response, after its return", [time.monotonic() - back])
    assert {answer.status for answer in answers[:-1]} <= {303}
    assert answers[-1].text == "passed accepted\n"


def test_first_requests_do_not_queue_for_a_redis_that_is_frozen(site, late, redis_server, aside, seen):
    """Ten first requests that meet a frozen Redis are refused side by side, and it serves when it wakes."""

    def refused(port):
        began = time.monotonic()
        answer = ask(port, "/fast?tag=early")
        return answer.status, time.monotonic() - began

    web = late()
    web.wait_for("Booting worker")
    os.kill(redis_server.process.pid, signal.SIGSTOP)
    try:
        answers = [aside.submit(refused, web.port) for _ in range(10)]
        took = [answer.result() for answer in answers]
    finally:
        os.kill(redis_server.process.pid, signal.SIGCONT)
    assert {status for status, _ in took} == {503}
    assert max(seconds for _, seconds in took) < PROMISED
    seen("the 503s", [seconds for _, seconds in took])
    until(lambda: ask(web.port, "/fast?tag=later").status == 200, what="an answer")
    assert site.runs("early") == []
