"""`wsgi-timeout doctor` and `health`, and the URLs that balancers ask: each failure is made, and seen."""

import math
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from call_steps import a_call, fresh_calls
from commands import run_here
from harness import Deployment, Process, RedisServer, ask, until

from wsgi_timeout import identity
from wsgi_timeout.front import platforms
from wsgi_timeout.serving import doctor_redis
from wsgi_timeout.serving.doctor import examine, exit_code
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import pauses, web_list
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.messages import WIRE_VERSION
from wsgi_timeout.store.record import text

GEVENT = ("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker")
#: A proxy with nginx's defaults, but for its timeout.
NGINX = """
pid {folder}/pid;
daemon off;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_buffer_size 1m;
    server {{
        listen 127.0.0.1:{port};
        location /shop/ {{
            proxy_pass http://127.0.0.1:{web}/;
            proxy_http_version 1.0;
            proxy_read_timeout 1s;
        }}
    }}
}}
"""
GOOD = {"WSGI_TIMEOUT_SECRET": "x" * 32}


@pytest.fixture
def server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def lonely(server):
    """Return a function that starts a deployment on a server of its own."""
    started = []

    def start(**options):
        started.append(Deployment(server, **options))
        return started[-1]

    yield start
    for site in started:
        site.stop()


def found(url, environment=GOOD, public_url="", probe_seconds=0.1):
    """Return verdict and text by the names of checks, the worst of each."""
    with connect(url, connections=1) as client:
        findings = list(examine(client, environment, public_url, probe_seconds))
    order = {"ok": 0, "warn": 1, "fail": 2}
    findings.sort(key=lambda finding: order[finding.verdict])
    assert all(finding.remedy or finding.verdict == "ok" for finding in findings)
    return {finding.check: (finding.verdict, finding.what) for finding in findings}, exit_code(findings)


def test_a_good_deployment_has_nothing_to_mend(lonely, monkeypatch):
    """With workers, append-only, and a web process behind the URL nothing fails; a frozen pool is unwell."""
    site = lonely(pool=("--processes", "1"), web=("--threads", "50"), wait_seconds=20, max_waiting=20)
    assert ask(site.web.port, "/fast").status == 200
    until(lambda: site.redis.client.hlen(f"wt:web:{site.name}"), what="the web process's description")
    checks, code = found(site.redis.url, public_url=site.url)
    assert code == 0
    assert checks["workers"][0] == checks["rights"][0] == checks["persistence"][0] == "ok"
    assert checks["public URL"] == ("ok", f"{site.url} leads to a ready web process")
    through = ("web", "HTTP version", "prefix", "origin", "buffering", "timeout", "clocks", "queue")
    assert {check: checks[check] for check in through if checks.get(check, ("ok",))[0] != "ok"} == {}
    for words in (("doctor", "--json"), ("health", "--name", site.name)):
        assert run_here(*words, url=site.redis.url)[0] == 0
    assert run_here("health", "--name", "nobody", url=site.redis.url)[0] == 1
    monkeypatch.setenv("WSGI_TIMEOUT_LEASE_SECONDS", "2")
    site.pool.popen.send_signal(signal.SIGSTOP)
    try:
        # Of one worker, or of none, once its lease counts as lost.
        assert run_here("health", url=site.redis.url)[0] == 1
    finally:
        site.pool.popen.send_signal(signal.SIGCONT)


def test_each_failure_is_named(server, monkeypatch):
    """No worker, eviction, no append-only file, a replica and others: a line with its remedy for each."""
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    server.client.config_set("appendonly", "no")
    assert found(server.url, {})[0]["secret"][0] == "ok"  # only this user can open its socket
    server.folder.chmod(0o755)
    checks, code = found(server.url, {})
    assert code == 1, checks
    assert checks["workers"] == ("fail", "none is running")
    assert checks["eviction"][0] == "fail"
    assert checks["memory"][0] == checks["persistence"][0] == checks["secret"][0] == "warn"
    server.client.config_set("maxmemory", "100mb")
    assert "max_buffered_bytes" in found(server.url)[0]["memory"][1]
    monkeypatch.setenv("WSGI_TIMEOUT_WAIT", "5")
    assert "did you mean" in found(server.url)[0]["settings"][1]
    monkeypatch.delenv("WSGI_TIMEOUT_WAIT")
    checks, _ = found(server.url, {"DYNO": "web.1"})
    assert (checks["wait"][0], "Heroku cuts after 30 s" in checks["wait"][1]) == ("fail", True)
    assert found(server.url, GOOD, "http://127.0.0.1:1")[0]["public URL"][0] == "fail"
    server.client.replicaof("127.0.0.1", "1")
    assert found(server.url)[0]["role"][0] == "fail"


def test_failures_of_workers_are_named(server):
    """Workers of two apps, versions, secrets or clocks, a pause, a queue that stands: a line each."""
    names = ("a", "b")
    with fresh_calls(server, "wrong", workers=names) as calls:
        url, tell = f"{server.url}?db=1", calls.redis.hset

        def both(**told):
            for worker in names:
                tell(f"wt:worker:{worker}", mapping=told)

        both(version=identity.version(), wire=WIRE_VERSION, secret="")
        assert found(url)[0]["workers"][0] == "ok"
        calls.redis.sadd("rq:queues", "rq:queue:wt:unserved")
        assert found(url)[0]["workers"][0] == "ok"  # of an app that is not used any more
        calls.redis.rpush("rq:queue:wt:unserved", "fc-waits")
        assert found(url)[0]["workers"] == ("fail", "none of unserved is running, and 1 calls wait")
        calls.redis.srem("rq:queues", "rq:queue:wt:unserved")
        for field, other, verdict, word in [
            ("target", "other:app", "fail", "more than one app"),
            ("wire", "99", "warn", f"wire version {WIRE_VERSION}, 99"),
            ("version", "0.0.1", "warn", "wsgi-timeout 0.0.1"),
            ("secret", "another", "fail", "WSGI_TIMEOUT_SECRET"),
        ]:
            before = calls.redis.hget("wt:worker:a", field)
            tell("wt:worker:a", field, other)
            told = found(url)[0]["workers"]
            assert (told[0], word in told[1]) == (verdict, True), told
            tell("wt:worker:a", field, before)
        tell("wt:worker:a", "clock", "2099-01-01T00:00:00.000000Z")
        assert "of workers" in found(url)[0]["clocks"][1]
        assert pauses.pause(calls.redis, "wrong")
        assert "is paused" in found(url)[0]["queue"][1]
        pauses.resume(calls.redis, "wrong")
        calls.enqueue(a_call())
        tell(f"wt:call:{text(calls.redis.lindex('rq:queue:wt:wrong', 0))}", "created", 1)
        assert "has waited for" in found(url)[0]["queue"][1]
        tell("wt:buffered:wrong", mapping={"*": 95, "+": 100})
        assert "max_buffered_bytes" in found(url)[0]["budget"][1]


def test_failures_of_web_processes_are_named(server):
    """A server that cuts the wait, has few threads, another secret, version or clock: a line each."""
    good = web_list.WebProcess(
        "h:1", "waitress", 500, math.inf, 200, 150, "", identity.version(), time.time()
    )
    with fresh_calls(server, "wrong", workers=("a",)) as calls:
        for changes, verdict, word in [
            ({}, "ok", "500 threads"),
            ({"timeout": 30.0}, "warn", "ends a request after 30 s"),
            ({"threads": 4}, "warn", "not more than max_waiting=200"),
            ({"secret": "another"}, "fail", "WSGI_TIMEOUT_SECRET"),
            ({"version": "0.0.1"}, "warn", "wsgi-timeout 0.0.1"),
        ]:
            web_list.tell(calls.redis, "wrong", replace(good, **changes))
            told = found(f"{server.url}?db=1")[0]["web"]
            assert (told[0], word in told[1]) == (verdict, True), told
        web_list.tell(calls.redis, "wrong", replace(good, clock=good.clock - 60))
        assert "a web process" in found(f"{server.url}?db=1")[0]["clocks"][1]
        checks, _ = found(f"{server.url}?db=1", {"FLY_APP_NAME": "shop"})
        assert checks["wait"] == ("fail", "150 s in h:1 of wrong, and Fly.io cuts after 60 s")
        silent = calls.redis.hget("wt:web:wrong", "h:1").split(b" ", 1)[1]
        calls.redis.hset("wt:web:wrong", "h:1", b"1 " + silent)
        assert found(f"{server.url}?db=1")[0]["web"][0] == "warn"
        gone = replace(
            good, process=f"{socket.gethostname()}:99999999", pid_namespace=web_list.pid_namespace()
        )
        calls.redis.delete("wt:web:wrong")
        web_list.tell(calls.redis, "wrong", gone)
        assert "no web process" in found(f"{server.url}?db=1")[0]["web"][1]


def test_a_full_server_and_a_full_disk_are_named(server):
    """Memory that is nearly used up, and a snapshot that could not be written, are failures."""
    used = server.client.info("memory")["used_memory"]
    server.client.config_set("maxmemory", int(used * 1.05))
    assert found(server.url)[0]["memory"][0] == "fail"
    server.client.config_set("maxmemory", 0)
    server.stop()
    # Where the snapshot is to be moved to is a folder.
    (server.folder / "taken").mkdir()
    server.start("--dbfilename", "taken")
    server.client.bgsave()
    until(lambda: not server.client.info("persistence")["rdb_bgsave_in_progress"], what="the snapshot's end")
    assert found(server.url)[0]["persistence"] == ("fail", "a snapshot failed: it may refuse all writes")


@pytest.mark.slow
def test_failures_of_a_proxy_are_named(deploy, tmp_path):
    """nginx with HTTP/1.0, buffers, a prefix and a host that it does not tell, and a timeout of 1 s."""
    site = deploy(pool=("--processes", "1"), wait_seconds=20)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    (tmp_path / "nginx.conf").write_text(NGINX.format(port=port, web=site.web.port, folder=tmp_path))
    nginx = Process(["nginx", "-c", tmp_path / "nginx.conf"], cwd=tmp_path)
    try:
        until(lambda: reached(port), 15, "nginx")
        checks, code = found(site.redis.url, public_url=f"http://127.0.0.1:{port}/shop", probe_seconds=3)
    finally:
        nginx.stop()
    assert code == 1
    verdicts = {
        check: checks[check][0] for check in ("HTTP version", "prefix", "origin", "buffering", "timeout")
    }
    assert verdicts == {
        "HTTP version": "warn",
        "prefix": "fail",
        "origin": "warn",
        "buffering": "warn",
        "timeout": "fail",
    }
    assert "answers 504 after 1 s" in checks["timeout"][1]


def reached(port):
    try:
        return ask(port, "/shop/__wsgi_timeout/ready").status == 200
    except OSError:
        return False


def test_a_platform_is_known_by_its_limit_and_its_variable(caplog):
    """Every known limit has a name of its own; a process that its platform would cut says so at its start."""
    limits = (29, 30, 45, 60, 100, 120, 230, 900)
    assert len({platforms.of_limit(limit + 0.4) for limit in limits} - {""}) == len(limits)
    assert platforms.of_limit(52) == ""
    platforms.warn_of_platform(20, {"DYNO": "web.1"})
    assert caplog.text == ""
    platforms.warn_of_platform(30, {"DYNO": "web.1"})
    assert "Heroku cuts a request after 30 s" in caplog.text
    assert "WSGI_TIMEOUT_WAIT_SECONDS=20" in caplog.text


def test_missing_rights_are_named(server):
    """A user who may not write our keys is told so; what it may not look at is a warning."""
    server.client.acl_setuser(
        "poor", enabled=True, nopass=True, keys=["*"], categories=["+@read", "+@connection"]
    )
    url = f"unix://poor:x@{server.socket}"
    checks, code = found(url)
    assert code == 1, checks
    assert checks["rights"][0] == "fail"
    assert checks["server"][0] == "warn"


class Elsewhere(BaseHTTPRequestHandler):
    """What is no web process of ours may say: `ok` to whatever is fetched, nothing to a POST."""

    ready = b"ok\n"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.ready)))
        self.end_headers()
        self.wfile.write(self.ready)

    def log_message(self, *_):
        pass


def test_a_url_that_leads_elsewhere_is_named(server, monkeypatch):
    """A public URL that leads to something else fails; one that lets no POST through cannot be looked at."""
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as elsewhere, ThreadPoolExecutor(1) as threads:
        threads.submit(elsewhere.serve_forever)
        try:
            url = f"http://127.0.0.1:{elsewhere.server_port}"
            assert found(server.url, public_url=url)[0]["proxy"][0] == "warn"
            monkeypatch.setattr(Elsewhere, "ready", b"welcome\n")
            assert "answers 200, not our web process" in found(server.url, public_url=url)[0]["public URL"][1]
        finally:
            elsewhere.shutdown()


def test_what_no_server_here_says_is_named(server, monkeypatch):
    """An old Redis, a disk that takes no writes, a clock that is wrong, a durability that cannot be kept."""

    class Said:
        """A server's answers."""

        def __init__(self, **values):
            self.info, self.time = lambda *_: values, lambda: (int(time.time()) - 60, 0)

    def first(check, **values):
        [finding] = list(check(Said(**values), Settings()))[:1]
        return finding.verdict, finding.what

    assert first(doctor_redis.server, redis_version="6.0.16") == ("fail", "redis 6.0.16")
    assert first(doctor_redis.persistence, aof_enabled=1, aof_last_write_status="err")[0] == "fail"
    verdict, what = first(doctor_redis.clock)
    assert (verdict, "the clock of this machine is +6" in what) == ("warn", True)
    monkeypatch.setenv("WSGI_TIMEOUT_DURABILITY", "fsync")
    assert found(server.url)[0]["durability"][0] == "ok"
    server.client.config_set("appendonly", "no")
    assert found(server.url)[0]["durability"][0] == "fail"


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
            # Told apart from 503s of requests: a deploy is nothing to be alarmed by.
            assert "/__wsgi_timeout/" not in web.output
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
