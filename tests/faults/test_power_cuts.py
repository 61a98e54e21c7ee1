"""Power cuts with `durability="fsync"`: Redis comes back with what was on its disk, and misses nothing."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults.power import CuttableServer, cut, deployed
from harness import (
    APPS,
    Gunicorn,
    Process,
    RedisServer,
    Serve,
    ask,
    environment,
    function_workers,
    joined,
    until,
)

from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.synced import Synced

pytestmark = pytest.mark.slow

CALL = re.compile(r"__wsgi_timeout_call=([^&]+)")


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


def test_a_key_finds_its_call_after_a_cut():
    """A POST that is repeated with its idempotency key after a power cut joins the first one's call."""
    key = {"Idempotency-Key": "once"}
    with deployed("always", "fsync", gateway="idempotency_headers='Idempotency-Key'") as (server, site):
        target = "/slow?tag=keyed&seconds=2"
        accepted = ask(site.web.port, target, "POST", headers=key)
        assert accepted.status == 303
        server.cut_power()
        server.start()
        call = CALL.search(accepted.location)[1]
        answer = until(lambda: served(site.web.port, target, key), 30, "an answer")
        while answer.status == 303:
            assert CALL.search(answer.location)[1] == call
            answer = ask(site.web.port, answer.location)
        assert (answer.status, answer.text) == (200, "slow POST keyed 0\n")
        assert len(site.runs("keyed")) == 1


def served(port, target, headers):
    answer = ask(port, target, "POST", headers=headers)
    return answer if answer.status != 503 else None


@pytest.mark.timeout(180)
def test_a_stock_workers_results_survive(tmp_path):
    """What RQ's own worker has run and told is on disk: after a cut its result is there, of one run."""
    server, runs = CuttableServer(tmp_path, "--appendfsync", "always"), tmp_path / "runs"
    settings = {"durability": "fsync", "worker_wait": 20, "target": "basic:app", "name": "stock"}
    env = {**environment(**settings), "REDIS_URL": server.url, "RUNS_FILE": str(runs)}
    app = "wsgi_timeout:gateway('basic:app', wait_for_response=False)"
    web = Gunicorn(app, server.url, env=env)
    words = ("worker", "--url", server.url, "--serializer", "json", "wt:stock")
    try:
        for tag in ("first", "second"):
            # RQ's worker ends when its connection does.
            worker = Process([Path(sys.executable).with_name("rq"), *words], env=env, cwd=APPS)
            worker.wait_for("Listening on", 40)
            accepted = ask(web.port, f"/fast?tag={tag}", "POST").json
            until(
                lambda url=accepted["status_url"]: ask(web.port, url).json["state"] == "ended", 40, "its end"
            )
            server.cut_power()
            worker.stop()
            server.start()
            assert ask(web.port, accepted["result_url"]).text == f"fast {tag}\n"
            assert [line.split()[0] for line in runs.read_text().splitlines()].count(tag) == 1
    finally:
        web.stop()
        worker.stop()
        server.close()
