"""Several machines, as network namespaces: two web, two of workers, Redis and a proxy; each is cut off."""

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import FAST, environment, is_missing, until
from machines import Machines, allowed

from wsgi_timeout.serving.embedded_redis import find_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

#: Before the two web processes, with retries of what was not sent, and checks of `ready`.
HAPROXY = """
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    retries 3
frontend all
    bind 10.77.0.6:8000
    default_backend webs
backend webs
    option redispatch
    option httpchk GET /__wsgi_timeout/ready
    server one 10.77.0.1:8000 check inter 300ms fall 2 rise 1 on-marked-down shutdown-sessions
    server two 10.77.0.2:8000 check inter 300ms fall 2 rise 1 on-marked-down shutdown-sessions
"""
WEBS, POOLS, REDIS, PROXY = ("web1", "web2"), ("pool1", "pool2"), "redis", "proxy"
URL = "http://10.77.0.6:8000"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if not allowed():
        pytest.skip("network namespaces need root")
    if not shutil.which("haproxy", path="/usr/sbin:/usr/bin"):
        is_missing("haproxy")
    folder = tmp_path_factory.mktemp("machines")
    (folder / "haproxy.cfg").write_text(HAPROXY)
    settings = {**FAST, "wait_seconds": 2, "worker_wait": 20, "lease_seconds": 3}
    env = {
        **environment(**settings, bind="0.0.0.0:8000", name="machines"),
        "REDIS_URL": "redis://10.77.0.5:6379/0",
        "RUNS_FILE": str(folder / "runs"),
    }
    (folder / "runs").touch()
    python = [sys.executable, "-m"]
    redis = [
        find_server(),
        "--bind",
        "10.77.0.5",
        "--protected-mode",
        "no",
        "--appendonly",
        "yes",
        "--save",
        "",
    ]
    web = [
        *python,
        "gunicorn",
        "-c",
        "python:wsgi_timeout.gunicorn_conf",
        "wsgi_timeout:gateway('basic:app')",
    ]
    pool = [*python, "wsgi_timeout.serving.cli", "worker", "basic:app", "--processes", "2"]
    with Machines((*WEBS, *POOLS, REDIS, PROXY), env) as machines:
        machines.folder = folder
        machines.start(REDIS, [*redis, "--dir", str(folder)])
        for name in POOLS:
            machines.start(name, pool).wait_for("takes calls", 40)
        for name in WEBS:
            machines.start(name, web).wait_for("Booting worker", 40)
        machines.start(PROXY, ["/usr/sbin/haproxy", "-W", "-f", str(folder / "haproxy.cfg")])
        until(lambda: machines.get(PROXY, f"{URL}/fast") == (200, "fast \n"), 40, "the first response")
        yield machines


def lines(site, tag):
    return [line for line in Path(site.folder, "runs").read_text().splitlines() if line.split()[0] == tag]


@pytest.mark.parametrize("name", [*POOLS, REDIS])
def test_a_machine_behind_is_cut_off(site, name, seen):
    """Calls that run when workers' machine, or Redis', is cut off for 8 s end with their responses."""
    tags = [f"{name}-{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(site.get, PROXY, f"{URL}/slow?seconds=3&tag={tag}") for tag in tags]
        until(lambda: all(lines(site, tag) for tag in tags), 30, "the handlers")
        began = time.monotonic()
        with site.cut_off(name):
            time.sleep(8)
        assert [run.result() for run in runs] == [(200, f"slow GET {tag} 0\n") for tag in tags]
        seen(f"{name} is cut off for 8 s: the last response", [time.monotonic() - began])
    assert all(len(lines(site, tag)) <= 2 for tag in tags)
    until(lambda: site.get(PROXY, f"{URL}/fast") == (200, "fast \n"), 30, "service as before")


@pytest.mark.parametrize("name", WEBS)
def test_a_web_machine_is_cut_off(site, name, seen):
    """While a web machine is cut off the other one answers, and a result URL goes on there."""
    began = time.monotonic()
    with site.cut_off(name):
        until(lambda: site.get(PROXY, f"{URL}/fast", 5) == (200, "fast \n"), 30, "the other web process")
        seen(f"{name} is cut off: the other one answers", [time.monotonic() - began])
        # Several in a row: HAProxy has noticed, and none goes to the one that is cut off.
        fast = (200, "fast \n")
        until(lambda: all(site.get(PROXY, f"{URL}/fast", 5) == fast for _ in range(5)), 60, "five answers")
        assert site.get(PROXY, f"{URL}/slow?seconds=3&tag={name}") == (200, f"slow GET {name} 0\n")
    assert len(lines(site, name)) == 1
    until(lambda: site.get(PROXY, f"{URL}/fast") == (200, "fast \n"), 30, "service as before")
