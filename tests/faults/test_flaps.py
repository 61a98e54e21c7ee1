"""A way to Redis that fails and comes back, again and again."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults.proxy import Proxy
from harness import follow, until

SEED = 20261128
#: Seconds of one failure, and of the time between two.
DOWN = (0.1, 3.0)
UP = (0.1, 1.0)
FLAPS = 8
SILENT = "silent"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def flap(proxy, how, over):
    """Let the way fail `FLAPS` times: connections close and none opens, or nothing comes through."""
    rng = random.Random(SEED)
    for _ in range(FLAPS):
        (proxy.black_hole if how == SILENT else proxy.refuse)()
        time.sleep(rng.uniform(*DOWN))
        proxy.heal()
        time.sleep(rng.uniform(*UP))
    over.set()


@pytest.mark.parametrize("how", ["closed", SILENT])
def test_a_way_that_flaps_loses_nothing(redis_server, tmp_path, deploy, seen, nothing_is_left, how):
    """With a `worker_wait` over the length of a failure each POST is answered, after one run."""
    proxy = Proxy(redis_server, tmp_path / "s")
    try:
        site = deploy(server=proxy, pool=("--processes", "2"), wait_seconds=2, worker_wait=20)
        over, visits = threading.Event(), []

        def visit(number):
            while not over.is_set():
                tag = f"{how}-{number}-{len(visits)}"
                began = time.monotonic()
                answer = follow(site.web.port, f"/slow?seconds=0.2&tag={tag}", "POST", timeout=100)[-1]
                visits.append((tag, answer.status, time.monotonic() - began))

        with ThreadPoolExecutor(5) as threads:
            held = threads.submit(
                follow, site.web.port, f"/slow?seconds=10&tag={how}-held", "POST", timeout=100
            )
            until(lambda: site.runs(f"{how}-held"), 20, "what runs through it all")
            visitors = [threads.submit(visit, number) for number in range(3)]
            flap(proxy, how, over)
            ended = time.monotonic()
            assert held.result(120)[-1].status == 200
            for visitor in visitors:
                visitor.result(120)
            seen("the last answer, after the last failure", [time.monotonic() - ended])
        for tag, status, _ in visits:
            assert (status, len(site.runs(tag))) == (200, 1), tag
        assert len(site.runs(f"{how}-held")) == 1
        assert follow(site.web.port, "/fast?tag=after")[-1].status == 200
    finally:
        proxy.heal()
        proxy.close()
