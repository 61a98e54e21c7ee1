"""Progress, reported from wherever a handler is."""

import subprocess
import sys

import pytest
from harness import ask, until

from wsgi_timeout import progress, track

EXPECTED = {
    **{
        how: {"done": 1, "total": 4, "message": how}
        for how in ("plain", "thread", "executor", "environ", "stream")
    },
    "nested": {"done": 1, "total": 4, "message": "thread"},
    "track": {"done": 2, "total": 3, "message": "rows"},
    "decimal": {"done": 1.5, "total": 3.0, "message": "decimal"},
    "odd": {"done": None, "total": None, "message": "7"},
    "huge": {"done": None, "total": 1e17, "message": "x" * 1000},
    "often": {"done": 20_000, "total": 20_000, "message": "often"},
}


@pytest.fixture(scope="module", params=[("1", "1"), ("1", "3")], ids=["a process", "threads"])
def site(deploy, request):
    processes, threads = request.param
    pool = ("--processes", processes, "--threads", threads)
    return deploy("reporting:app", pool=pool, gateway="wait_for_response=False")


@pytest.mark.parametrize("how", EXPECTED)
def test_a_report_arrives(site, gate, how):
    """What a handler reports stands on the status URL while it runs, from wherever it came."""
    status_url = ask(site.web.port, f"/{how}?gate={gate}").json["status_url"]
    told = []
    until(lambda: told.append(ask(site.web.port, status_url).json["progress"]) or told[-1] == EXPECTED[how])
    gate.touch()
    until(lambda: ask(site.web.port, status_url).json["state"] == "ended", what="the end")


def test_many_reports_are_few_writes(site, gate, redis_server):
    """A handler that reports 20,000 times writes as often as its seconds allow."""
    before = redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    status_url = ask(site.web.port, f"/often?gate={gate}").json["status_url"]
    looks = []
    until(lambda: looks.append(1) or ask(site.web.port, status_url).json["progress"] == EXPECTED["often"])
    spent = redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before
    assert spent < 2 * len(looks) + 200


def test_it_is_nothing_outside_a_call():
    """Outside a call progress does nothing, and `track` is the loop itself."""
    progress(1, 2, "nobody listens")
    assert list(track(iter("abc"))) == ["a", "b", "c"]


def test_it_costs_nothing_outside_a_call():
    """A million reports outside a call ask nobody, and start no thread."""
    code = """
import threading, wsgi_timeout
for n in range(10**6): wsgi_timeout.progress(n)
print(threading.active_count())
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"
