"""A real Sentinel failover under traffic: a primary is killed, and its replica takes over."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import ask, follow, until
from result_urls import call_in
from watched import Watched

from wsgi_timeout.store import keys

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    watched = Watched(tmp_path_factory.mktemp("watched"))
    yield watched
    watched.close()


def test_the_old_primary_lives_on(deploy, redis_server, seen):
    """What is accepted once the sentinels have named another primary is on that one, in both halves."""
    site = deploy(server=redis_server, gateway="wait_for_response=False", pool=("--processes", "2"))
    assert ask(site.web.port, "/fast?tag=before").status == 202
    old = redis_server.replace_primary()
    there = redis_server.client_of(redis_server.ports[old])
    named, written, accepted = time.monotonic(), 0, []
    while redis_server.role(old) == "master" and time.monotonic() < named + 30:
        accepted.append(ask(site.web.port, f"/fast?tag=lives{len(accepted)}"))
        written += there.exists(keys.call(call_in(accepted[-1].location)[0]))
        time.sleep(0.1)
    seen("the old one became a replica", [time.monotonic() - named])
    # Later ones than the first few hundredths of a second, in which nobody may have heard.
    assert written <= 1
    answers = [follow(site.web.port, answer.location, timeout=60)[-1] for answer in accepted[1:]]
    assert {answer.status for answer in answers} == {200}


def test_a_failover_under_traffic(deploy, redis_server, seen):
    """The primary is killed: what was replicated is answered, nothing runs twice, new requests are served."""
    site = deploy(
        server=redis_server, pool=("--processes", "2", "--threads", "4"), wait_seconds=2, worker_wait=1
    )
    over = threading.Event()

    def visit(number):
        answers = []
        while not over.is_set():
            tag = f"v{number}-{len(answers)}"
            answers.append((tag, follow(site.web.port, f"/fast?tag={tag}", timeout=60)[-1]))
        return answers

    with ThreadPoolExecutor(8) as threads:
        held = [
            threads.submit(follow, site.web.port, f"/slow?seconds=8&tag=held{n}", "POST", timeout=100)
            for n in range(3)
        ]
        until(lambda: all(site.runs(f"held{n}") for n in range(3)), 30, "what runs through the failover")
        # What the replica has, nobody loses.
        until(lambda: redis_server.client.wait(1, 5000) == 1)
        new = 1 - redis_server.primary
        visitors = [threads.submit(visit, number) for number in range(4)]
        redis_server.kill_primary()
        killed = time.monotonic()
        until(lambda: redis_server.role(new) == "master", 60, "the replica as primary")
        until(lambda: follow(site.web.port, "/fast?tag=after", timeout=60)[-1].status == 200, 60)
        seen("a new request is served", [time.monotonic() - killed])
        over.set()
        for answer in (each.result(120)[-1] for each in held):
            assert answer.status == 200
        for visitor in visitors:
            for tag, answer in visitor.result(120):
                # 404: it was accepted in the moment before, and not replicated.
                assert answer.status in {200, 503, 404}, (tag, answer)
                assert len(site.runs(tag)) <= 2
    for number in range(3):
        assert len(site.runs(f"held{number}")) == 1
