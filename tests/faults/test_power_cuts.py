"""Power cuts with `durability="fsync"`: Redis comes back with what was on its disk, and misses nothing."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults.power import CuttableServer, cut, deployed
from harness import APPS, RedisServer, Serve, ask, environment, function_workers, joined, until

from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.synced import Synced

pytestmark = pytest.mark.slow


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("appendfsync", "cuts"), [("always", 6), ("everysec", 3)])
def test_no_accepted_post_is_lost_or_runs_twice(appendfsync, cuts):
    """Each POST that was answered with a redirect or a response has that response, of one run."""
    with deployed(appendfsync, "fsync") as (server, site):
        found, _ = cut(server, site, cuts, workers_too=3)
    assert found["once"] > cuts
    assert (found["lost"], found["twice"]) == (0, 0), found


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_what_is_told_is_on_disk(tmp_path, appendfsync):
    """A command's reply comes when the file on disk has what it wrote, also where WAITAOF is early."""
    server = CuttableServer(tmp_path, "--appendfsync", appendfsync)
    try:
        synced = Synced(connect(server.url, connections=1))
        for number in range(3):
            assert synced.send("SET", f"key{number}", "value") == b"OK"
            server.cut_power()
            server.start()
            assert server.client.get(f"key{number}") == b"value"
    finally:
        server.close()


def test_a_spawned_call_survives():
    """A function call is on disk when `spawn` returns; its result, when `get` does."""
    with deployed("always", "fsync", target="spawned:stub", secret="any") as (server, site):
        until(lambda: function_workers(server, site.name) >= 1, 20, "the process for functions")
        with joined(server.url, site.name, site.env):
            import spawned

            for number in range(3):
                call = spawned.add.spawn(number)
                server.cut_power()
                server.start()
                result = call.get(timeout=30)
                server.cut_power()
                server.start()
                assert call.get(timeout=30) == result


@pytest.mark.parametrize("command", [("worker", "basic:app"), ("serve", "basic:app")])
def test_both_halves_are_refused_at_start(command):
    """On a server that has no append-only file neither `serve` nor `worker` starts, and says what to set."""
    server = RedisServer()
    try:
        server.client.config_set("appendonly", "no")
        env = {**environment(durability="fsync"), "REDIS_URL": server.url}
        command = [sys.executable, "-m", "wsgi_timeout.serving.cli", *command]
        ended = subprocess.run(command, env=env, cwd=APPS, check=False, timeout=60, capture_output=True)
        assert ended.returncode == 2
        assert b"no append-only file; set appendonly yes" in ended.stderr
    finally:
        server.close()


def test_the_embedded_server_syncs_each_write(tmp_path):
    """`serve` starts its own server so that it can, and says what a call costs."""
    served = Serve("basic:app", folder=APPS, state=tmp_path, durability="fsync")
    try:
        assert "appendfsync always; a write is on disk after " in served.output
        assert ask(served.port, "/fast", "POST").status == 200
    finally:
        served.stop()


def test_greenlets_share_syncs():
    """Under gevent many requests at a time are accepted, and none holds up the others."""
    worker = ("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker")
    with (
        deployed("always", "fsync", web=worker, wait_seconds=60) as (_, site),
        ThreadPoolExecutor(20) as threads,
    ):
        asked = [threads.submit(ask, site.web.port, f"/fast?tag=g{n}", "POST", timeout=90) for n in range(20)]
        assert {answer.result().status for answer in asked} == {200}
