"""What becomes of a call whose worker dies, or that finds none."""

import contextlib
import os
import signal
import socket
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import psutil
import pytest
from harness import APPS, Gunicorn, Pool, ask, until

LEASE = 2.0


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "2"), wait_seconds=40, lease_seconds=LEASE)


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


@pytest.fixture
def aside():
    """A thread for the request during which something dies."""
    with ThreadPoolExecutor(1) as threads:
        yield threads


def lone_web(site, name):
    """Start a web process for a name that no worker serves."""
    app = f"wsgi_timeout:gateway('basic:app', name={name!r})"
    return Gunicorn(app, site.redis.url, env=site.env, cwd=APPS)


def is_alive(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def runner(site, tag, runs=1):
    """Return the pid of the worker that runs the last of so many runs, once it does."""
    return int(until(lambda: site.runs(tag)[runs - 1 :], what=f"run {runs} of {tag}")[0].split()[1])


def test_without_a_worker_a_request_is_refused(site):
    """With no live worker a request gets 503 after `worker_wait`, with the command that starts one."""
    web = lone_web(site, f"{site.name}-nobody")
    try:
        ask(web.port, "/fast?__wsgi_timeout_call=")  # it is up
        began = time.monotonic()
        answer = ask(web.port, "/fast?tag=nobody")
        assert 1 <= time.monotonic() - began < 4
        assert (answer.status, answer.header("Retry-After")) == (503, "5")
        assert "`wsgi-timeout worker " in answer.json["detail"]
        assert not list(site.redis.client.scan_iter(match=f"rq:queue:wt:{site.name}-nobody"))
    finally:
        web.stop()


def test_a_first_worker_is_waited_for(site, aside):
    """A request that comes just before the first worker is answered by it."""
    name = f"{site.name}-late"
    app = f"wsgi_timeout:gateway('basic:app', name={name!r}, worker_wait=30)"
    web = Gunicorn(app, site.redis.url, env=site.env, cwd=APPS)
    pool = None
    try:
        ask(web.port, "/fast?__wsgi_timeout_call=")  # it is up
        early = aside.submit(ask, web.port, "/fast?tag=early")
        pool = Pool("basic:app", name, site.redis.url, env=site.env, cwd=APPS)
        assert early.result().text == "fast early\n"
    finally:
        web.stop()
        if pool:
            pool.stop()


def test_a_get_whose_worker_is_killed_runs_again(site, port, aside, gate):
    """A GET whose worker process is killed in mid handler is answered by a second run, in another process."""
    waiting = aside.submit(ask, port, f"/gate?file={gate}&tag=get")
    first = runner(site, "get")
    os.kill(first, signal.SIGKILL)
    second = runner(site, "get", 2)
    gate.touch()
    assert (waiting.result().status, waiting.result().text) == (200, "passed get\n")
    assert first != second
    assert len(site.runs("get")) == 2


def test_a_post_whose_worker_is_killed_is_lost_at_once(site, port, aside):
    """A POST whose worker is killed gets 502 at once and does not run again; the pool goes on."""
    waiting = aside.submit(ask, port, "/slow?tag=post&seconds=50", "POST", body=b"once")
    pid = runner(site, "post")
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    answer = waiting.result()
    assert time.monotonic() - killed < 1.5
    assert (answer.status, answer.header("Content-Type")) == (502, "application/problem+json")
    assert "worker died" in answer.json["detail"]
    # Both processes are there again, and each takes calls.
    # (On a busy machine one may be redirected, and tells no pid.)
    until(
        lambda: len({ask(port, "/pid").json.get("pid") for _ in range(20)} - {None}) == 2, 20, "two workers"
    )
    assert pid not in {process.pid for process in site.pool.workers()}
    assert len(site.runs("post")) == 1


def test_a_lost_call_shows_on_a_browsers_page(site, port, aside):
    """The 502 is a page for a browser."""
    headers = {"Accept": "text/html"}
    waiting = aside.submit(ask, port, "/slow?tag=page&seconds=50", "POST", headers=headers)
    os.kill(runner(site, "page"), signal.SIGKILL)
    answer = waiting.result()
    assert (answer.status, answer.header("Content-Type")) == (502, "text/html; charset=utf-8")
    assert "<title>Bad Gateway</title>" in answer.text


def test_a_large_body_is_whole_in_the_second_run(site, port, aside, gate):
    """A PUT that runs again reads its body from the beginning, which the first run had read a part of."""
    body = array("Q", range(400_000)).tobytes()
    waiting = aside.submit(ask, port, f"/hash?tag=put&file={gate}", "PUT", body=body)
    os.kill(runner(site, "put"), signal.SIGKILL)
    runner(site, "put", 2)
    gate.touch()
    assert waiting.result().json == {"length": len(body), "sha256": sha256(body).hexdigest()}


def test_a_handler_that_kills_its_process_ends(site, port):
    """A GET that kills its worker on every run ends in 502 after `max_attempts` runs."""
    answer = ask(port, "/dies?tag=dies")
    assert answer.status == 502
    assert "signal 9" in answer.json["detail"]
    assert len(site.runs("dies")) == 2
    until(lambda: ask(port, "/fast").status == 200, what="an answer of a next worker")


def test_a_second_run_can_be_forbidden(site):
    """With `max_attempts=1` not even a GET runs again."""
    web = site.start_web(gateway="max_attempts=1")
    try:
        assert ask(web.port, "/dies?tag=once").status == 502
        assert len(site.runs("once")) == 1
    finally:
        web.stop()


def test_a_response_that_was_begun_breaks_off(site, port, gate):
    """When a worker dies after the first bytes of a response went out, the response ends in a break."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(f"GET /trickle?tag=begun&file={gate} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = b""
        while b"one\n" not in answer:
            answer += client.recv(65536)
        os.kill(runner(site, "begun"), signal.SIGKILL)
        while piece := client.recv(65536):
            answer += piece
    assert answer.endswith(b"4\r\none\n\r\n")
    assert ask(port, "/fast").status == 200
    assert len(site.runs("begun")) == 1


def test_a_call_of_a_pool_that_was_killed_is_recovered(site, port, aside, gate):
    """When a whole pool is killed, another one runs its GET again, once, after the lease is lost."""
    waiting = aside.submit(ask, port, f"/gate?file={gate}&tag=pool")
    queued = [f"/fast?tag=queued{number}" for number in range(3)]
    runner(site, "pool")
    family = site.pool.descendants()
    killed = time.monotonic()
    site.pool.popen.kill()
    until(lambda: not any(is_alive(process) for process in family), what="the end of its processes")
    site.pool.stop()
    site.pool = site.start_pool("--processes", "2")
    second = runner(site, "pool", 2)
    assert time.monotonic() - killed >= LEASE * 0.6
    assert second in {process.pid for process in site.pool.workers()}
    assert [ask(port, target).status for target in queued] == [200, 200, 200]
    gate.touch()
    assert waiting.result().text == "passed pool\n"
    assert len(site.runs("pool")) == 2


def test_a_bound_below_the_apps_own_size_stops_no_call(deploy):
    """A process larger than `--max-memory` from the start answers a call, and is replaced then."""
    site = deploy(pool=("--processes", "1", "--max-memory", "1"), worker_wait=20)
    first = ask(site.web.port, "/pid").json["pid"]
    until(lambda: not psutil.pid_exists(first), what="its end")
    assert ask(site.web.port, "/pid").json["pid"] != first


@pytest.mark.usefixtures("terminal")
def test_a_closed_terminal_lets_calls_end(deploy, aside, gate):
    """SIGHUP to the pool and its processes, as of a terminal, is a stop: what runs ends and is delivered."""
    site = deploy(pool=("--processes", "2"), wait_seconds=40)
    answer = aside.submit(ask, site.web.port, f"/gate?file={gate}&tag=hangup")
    until(lambda: site.runs("hangup"), what="its start")
    os.killpg(site.pool.pid, signal.SIGHUP)
    until(lambda: len(site.pool.workers()) == 1, what="the end of the idle one")
    gate.touch()
    assert answer.result().status == 200
    assert site.pool.popen.wait(20) == 0
