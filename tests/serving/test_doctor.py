"""`wsgi-timeout doctor` and `health`, and the URLs that balancers ask: each failure is made, and seen."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import APPS, RedisServer, ask, until

from wsgi_timeout.serving.doctor import examine, exit_code
from wsgi_timeout.store.connection import connect

GEVENT = ("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker")
GOOD = {"WSGI_TIMEOUT_SECRET": "x" * 32}


@pytest.fixture
def server():
    server = RedisServer()
    yield server
    server.close()


def found(url, environment=GOOD, public_url=""):
    """Return verdict and text by the names of checks, the worst of each."""
    with connect(url, connections=1) as client:
        findings = list(examine(client, environment, public_url))
    order = {"ok": 0, "warn": 1, "fail": 2}
    findings.sort(key=lambda finding: order[finding.verdict])
    assert all(finding.remedy or finding.verdict == "ok" for finding in findings)
    return {finding.check: (finding.verdict, finding.what) for finding in findings}, exit_code(findings)


def test_a_good_deployment_has_nothing_to_mend(deploy):
    """With workers, append-only, and a web process behind the public URL nothing fails."""
    site = deploy(pool=("--processes", "1"), wait_seconds=20)
    checks, code = found(site.redis.url, public_url=site.url)
    assert code == 0
    assert checks["workers"][0] == checks["rights"][0] == checks["persistence"][0] == "ok"
    assert checks["public URL"] == ("ok", f"{site.url} leads to a ready web process")
    command = [sys.executable, "-m", "wsgi_timeout.serving.cli"]
    env = {**site.env, "REDIS_URL": site.redis.url}
    for words in (("doctor", "--json"), ("health", "--name", site.name)):
        subprocess.run([*command, *words], env=env, cwd=APPS, check=True, timeout=60, capture_output=True)
    nobody = subprocess.run([*command, "health", "--name", "nobody"], env=env, check=False, timeout=60)
    assert nobody.returncode == 1


def test_each_failure_is_named(server, monkeypatch):
    """No worker, eviction, no append-only file, a replica and others: a line with its remedy for each."""
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    server.client.config_set("appendonly", "no")
    checks, code = found(server.url, {})
    assert code == 1
    assert checks["workers"] == ("fail", "none lives")
    assert checks["eviction"][0] == "fail"
    assert checks["memory"][0] == checks["persistence"][0] == checks["secret"][0] == "warn"
    server.client.config_set("maxmemory", "100mb")
    assert "max_buffered_bytes" in found(server.url)[0]["memory"][1]
    monkeypatch.setenv("WSGI_TIMEOUT_WAIT", "5")
    assert "did you mean" in found(server.url)[0]["settings"][1]
    monkeypatch.delenv("WSGI_TIMEOUT_WAIT")
    assert found(server.url, {"DYNO": "web.1"})[0]["wait"] == (
        "fail",
        "Heroku cuts after 30 s, a wait has 150 s",
    )
    assert found(server.url, GOOD, "http://127.0.0.1:1")[0]["public URL"][0] == "fail"
    server.client.replicaof("127.0.0.1", "1")
    assert found(server.url)[0]["role"][0] == "fail"


def test_missing_rights_are_named(server):
    """A user who may not write our keys is told so; what it may not look at is a warning."""
    server.client.acl_setuser(
        "poor", enabled=True, nopass=True, keys=["*"], categories=["+@read", "+@connection"]
    )
    url = f"unix://poor:x@{server.socket}"
    checks, code = found(url)
    assert code == 1
    assert checks["rights"][0] == "fail"
    assert checks["server"][0] == "warn"


def test_a_cluster_and_a_silent_server_are_named(server):
    """Cluster mode is refused, and a Redis that is away is said to be."""
    server.stop()
    server.start("--cluster-enabled", "yes")
    assert found(server.url)[0]["cluster"][0] == "fail"
    assert found("unix:///nowhere")[0]["redis"][0] == "fail"


@pytest.mark.parametrize("options", [(), GEVENT], ids=["gthread", "gevent"])
@pytest.mark.slow
def test_ready_ends_before_the_drain(deploy, gate, options):
    """Told to stop, a web process is unready first and goes on serving; then it redirects what waits."""
    site = deploy(pool=("--processes", "1"), wait_seconds=30, drain_delay=3)
    web = site.start_web(*options)
    with ThreadPoolExecutor(1) as threads:
        try:
            assert ask(web.port, "/__wsgi_timeout/ready").text == "ok\n"
            waits = threads.submit(ask, web.port, f"/gate?file={gate}")
            until(lambda: site.redis.client.zcard(f"rq:wip:wt:{site.name}"), what="the call")
            web.popen.send_signal(signal.SIGTERM)
            until(lambda: ask(web.port, "/__wsgi_timeout/ready").status == 503, what="the end of ready")
            assert ask(web.port, "/__wsgi_timeout/live").status == 200
            assert not waits.done()
            assert waits.result().status == 303
            assert web.popen.wait(20) == 0
            assert "/__wsgi_timeout/live" not in web.output
        finally:
            gate.touch()
            web.stop()


def test_health_is_answered_while_all_wait(deploy, gate):
    """With all places for waiting requests taken, live and ready are answered as before."""
    site = deploy(pool=("--processes", "1"), wait_seconds=30, max_waiting=2)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(ask, site.web.port, f"/gate?file={gate}") for _ in range(2)]
        until(lambda: site.redis.client.llen(f"rq:queue:wt:{site.name}"), what="the second call")
        assert ask(site.web.port, "/fast").status == 503
        assert ask(site.web.port, "/__wsgi_timeout/live").status == 200
        assert ask(site.web.port, "/__wsgi_timeout/ready", "HEAD").status == 200
        gate.touch()
        assert [each.result().status for each in waiting] == [200, 200]
