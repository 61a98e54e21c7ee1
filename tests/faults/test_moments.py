"""Faults that meet: a stop while Redis is away, a death after a handler's end, a cancel at that moment."""

import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from faults.proxy import Break, Proxy
from harness import APPS, Gunicorn, ask, follow, function_workers, joined, misfits, until

from wsgi_timeout.errors import CallCancelled, CallTimedOut, WorkerLost
from wsgi_timeout.functions.client import client
from wsgi_timeout.store import keys, rq_state

LEASE = 2.0
#: Seconds until a new request is refused while Redis is away: less than `worker_wait`.
REFUSED = 20.0

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_is_left")]


@pytest.fixture
def aside():
    with ThreadPoolExecutor(20) as threads:
        yield threads


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "2"), wait_seconds=30, worker_wait=20, lease_seconds=LEASE)


def begun(site, tag):
    return until(lambda: site.runs(tag), 20, f"the begin of {tag}")


def test_a_pool_that_is_stopped_while_redis_is_away_keeps_its_outcomes(deploy, redis_server, aside, seen):
    """TERM while Redis is away: the pool waits for it, records what ended meanwhile, and ends."""
    site = deploy(pool=("--processes", "1"), wait_seconds=30, lease_seconds=LEASE)
    waiting = aside.submit(follow, site.web.port, "/slow?seconds=1&tag=stopped", "POST")
    begun(site, "stopped")
    redis_server.stop(signal.SIGKILL)
    began = time.monotonic()
    site.pool.popen.terminate()
    until(lambda: time.monotonic() - began > 1.5 * LEASE)
    assert site.pool.popen.poll() is None
    redis_server.start()
    back = time.monotonic()
    assert waiting.result()[-1].text == "slow POST stopped 0\n"
    assert site.pool.popen.wait(10) == 0
    seen("the response, and the pool's end, after its return", [time.monotonic() - back])
    assert len(site.runs("stopped")) == 1


def test_a_pool_that_gives_up_on_a_redis_that_is_away_leaves_no_riddle(deploy, redis_server, aside, seen):
    """What such a pool could not record others settle when Redis is back: a POST is lost, a GET runs."""
    site = deploy(
        pool=("--processes", "2", "--graceful-timeout", "1"),
        wait_seconds=30,
        worker_wait=20,
        lease_seconds=LEASE,
    )
    post = aside.submit(follow, site.web.port, "/slow?seconds=0.5&tag=post", "POST")
    get = aside.submit(follow, site.web.port, "/slow?seconds=0.5&tag=get")
    begun(site, "post")
    begun(site, "get")
    redis_server.stop(signal.SIGKILL)
    old = site.pool
    old.popen.terminate()
    assert old.popen.wait(15) == 0
    redis_server.start()
    back = time.monotonic()
    site.pool = site.start_pool("--processes", "1")
    old.stop()
    answer = post.result()[-1]
    assert (answer.status, "interrupted" in answer.json["detail"]) == (502, True)
    assert get.result()[-1].text == "slow GET get 0\n"
    seen("both outcomes, after its return", [time.monotonic() - back])
    assert [len(site.runs(tag)) for tag in ("post", "get")] == [1, 2]


@pytest.mark.slow
def test_what_redis_executes_late_moves_nothing_to_the_dead(deploy, redis_server, aside, tmp_path, seen):
    """A BLMOVE that reaches Redis when its worker was recovered leaves the call for the next pool."""
    proxy = Proxy(redis_server, tmp_path / "s")
    site = deploy(server=proxy, pool=("--processes", "1"), lease_seconds=LEASE)
    app = f"wsgi_timeout:gateway({site.target!r}, name={site.name!r}, wait_seconds=30)"
    web = Gunicorn(app, redis_server.url, env=site.env, cwd=APPS)
    late, queue = [], rq_state.queue_key(site.name)
    try:
        proxy.break_at(
            Break.BEFORE,
            lambda exchange: exchange.name == "BLMOVE" and (proxy.black_hole() or late.append(exchange)),
        )
        until(lambda: late, what="its next look for calls")
        waiting = aside.submit(ask, web.port, "/fast?tag=late", "POST")
        until(lambda: redis_server.client.llen(queue) == 1, what="the call")
        for process in (psutil.Process(site.pool.pid), *site.pool.workers()):
            process.kill()
        until(lambda: not redis_server.client.hlen(keys.leases(site.name)), what="its recovery")
        before = misfits(redis_server)
        proxy.heal()
        until(lambda: misfits(redis_server) > before, what="its refusal")
        assert redis_server.client.llen(queue) == 1
        at, dead = time.monotonic(), site.pool
        site.pool = site.start_pool("--processes", "1")
        dead.stop()
        assert waiting.result().text == "fast late\n"
        seen("the response, from the next pool's start", [time.monotonic() - at])
        assert len(site.runs("late")) == 1
    finally:
        web.stop()
        site.stop()
        proxy.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_worker_killed_after_its_handlers_end(deploy, redis_server, aside, tmp_path, seen, method):
    """A worker that dies with its outcome sent, and not yet read by Redis: that outcome, of one run."""
    proxy = Proxy(redis_server, tmp_path / "s")
    site = deploy(
        server=proxy, pool=("--processes", "2"), wait_seconds=30, worker_wait=20, lease_seconds=LEASE
    )
    try:
        waiting = aside.submit(follow, site.web.port, "/slow?seconds=0.5&tag=sent", method)
        worker = int(begun(site, "sent")[0].split()[1])
        proxy.clear()
        proxy.black_hole()
        until(lambda: any(b"done" in exchange.words for exchange in proxy.exchanges), what="its outcome")
        os.kill(worker, signal.SIGKILL)
        proxy.heal()
        healed = time.monotonic()
        assert waiting.result()[-1].text == f"slow {method} sent 0\n"
        seen("until the response", [time.monotonic() - healed])
        until(lambda: len(site.redis.client.hkeys(keys.leases(site.name))) == 2, 20, "a new worker")
        assert len(site.runs("sent")) == 1
    finally:
        site.stop()
        proxy.close()


def test_a_cancel_at_the_moment_of_the_end(site, seen):
    """However a cancel and an end meet, everybody is told the same: cancelled or not."""
    web = site.start_web(gateway="wait_for_response=False")
    told, took = [], []
    try:
        for number in range(40):
            urls = ask(web.port, f"/slow?seconds=0.03&tag=race{number}", "POST").json
            begun(site, f"race{number}")
            time.sleep(0.003 * (number % 20))  # now sooner, now later than the handler's end
            at = time.monotonic()
            cancelled = ask(web.port, urls["status_url"], "DELETE").status
            told.append((cancelled, ask(web.port, urls["result_url"]).status))
            took.append(time.monotonic() - at)
            assert len(site.runs(f"race{number}")) == 1
    finally:
        web.stop()
    seen("from the cancel until both were told", took)
    assert set(told) <= {(202, 410), (409, 200)}
    assert len(set(told)) == 2


def test_web_processes_that_wait_for_one_call_are_independent(site, aside, gate, seen):
    """When one of two web processes that wait for a call is killed, the other one gets the response."""
    one, other = (site.start_web() for _ in range(2))
    later = site.start_web(gateway="wait_for_response=False")
    try:
        url = ask(later.port, f"/gate?tag=two&file={gate}").location
        record = next(
            key
            for key in site.redis.client.scan_iter(keys.call("*"))
            if b"tag=two" in site.redis.client.hget(key, "request")
        )
        waiting = [aside.submit(ask, port, url) for port in (one.port, other.port)]

        def inboxes():
            return (site.redis.client.hget(record, "inboxes") or b"").split()

        until(lambda: len(inboxes()) == 2, what="both to wait")
        for worker in one.workers():
            worker.kill()
        killed = time.monotonic()
        gate.touch()
        assert waiting[1].result().text == "passed two\n"
        seen("the other's response", [time.monotonic() - killed])
        assert isinstance(waiting[0].exception(), OSError)
        assert len(site.runs("two")) == 1
    finally:
        for web in (one, other, later):
            web.stop()


def test_a_web_process_that_starts_while_redis_is_away(site, redis_server, seen):
    """A web process that is started while Redis is away says 503 at once, and serves when it is back."""
    redis_server.stop(signal.SIGKILL)
    app = f"wsgi_timeout:gateway({site.target!r}, name={site.name!r})"
    web = Gunicorn(app, redis_server.url, env=site.env, cwd=APPS)
    try:
        started = time.monotonic()
        web.wait_for("Booting worker")
        began = time.monotonic()
        refused = ask(web.port, "/fast?tag=early")
        assert (refused.status, refused.header("Retry-After")) == (503, "5")
        seen("the 503, from its start", [time.monotonic() - started])
        assert time.monotonic() - began < REFUSED
        redis_server.start()
        back = time.monotonic()
        assert until(lambda: ask(web.port, "/fast?tag=later").status == 200, what="an answer")
        seen("service, after its return", [time.monotonic() - back])
        assert site.runs("early") == []
    finally:
        web.stop()


@pytest.fixture
def functions(deploy, redis_server):
    options = ("--processes", "1", "--function-processes", "1")
    site = deploy(
        "spawned:stub", pool=options, secret="any", worker_wait=20, retry_backoff=2, lease_seconds=LEASE
    )
    until(lambda: function_workers(site.redis, site.name) == 1, 20, "the process for functions")
    with joined(redis_server.url, site.name, site.env):
        import spawned

        yield site, spawned
        client().redis.close()


def test_a_retry_outlives_the_pool_that_promised_it(functions, seen):
    """A function that waits for its retry when its only pool is killed is run by the next pool, when due."""
    site, app = functions
    call = app.mirror.spawn("backoff", b"x" * 10)
    until(lambda: call.status()["state"] == "delayed", 20, "its pause")
    dead = site.pool
    for process in (psutil.Process(dead.pid), *dead.workers()):
        process.kill()
    killed = time.monotonic()
    site.pool = site.start_pool("--processes", "1", "--function-processes", "1")
    dead.stop()
    assert call.get(timeout=30) == b"x" * 10
    seen("the result, with a pause of 2 s", [time.monotonic() - killed])
    assert call.status()["attempts"] == 2
    assert len(site.runs("backoff")) == 2


def test_a_function_whose_worker_dies_is_lost_once(functions, gate, seen):
    """A function call whose worker is killed ends as lost, after one run, and its pool serves on."""
    site, app = functions
    call = app.held_blob.spawn(str(gate), "dies", 10)
    worker = int(begun(site, "dies")[0].split()[1])
    killed = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="signal 9"):
        call.get(timeout=10)
    seen("WorkerLost", [time.monotonic() - killed])
    assert app.add.spawn(1).get(timeout=20) == 1
    assert len(site.runs("dies")) == 1


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_stays_of_a_download_that_nobody_can_ask_for(site, redis_server, killed):
    """A client that leaves before it knows a result URL takes all of its call along."""
    redis, tag = redis_server.client, f"leaves-{killed}"
    with socket.create_connection(("127.0.0.1", site.web.port)) as sock:
        sock.sendall(f"GET /numbers?tag={tag}&size={100_000_000} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        worker = psutil.Process(int(begun(site, tag)[0].split()[1]))
        assert sock.recv(65536)
        records = redis.scan_iter(keys.call("*"))
        record = next(key for key in records if tag.encode() in redis.hget(key, "request"))
        if killed:
            worker.suspend()
    until(lambda: not redis.exists(record), what="the end of its record")
    if killed:
        worker.kill()
    call_id = record.decode().removeprefix(keys.call(""))
    until(lambda: not tuple(redis.scan_iter(f"*{call_id}*")), 20, "the end of its last key")
    until(lambda: not redis.zcard(rq_state.started_key(site.name)), 20, "the end of what RQ lists as running")
    assert ask(site.web.port, f"/fast?tag=after-{tag}").status == 200


@pytest.mark.parametrize("ending", [CallTimedOut, CallCancelled, WorkerLost])
def test_what_came_of_a_result_goes_with_its_call(functions, redis_server, gate, ending):
    """A large result of which a full Redis takes a part only is deleted when its call ends without it."""
    site, app = functions
    tag, function = ending.__name__, app.brief_blob if ending is CallTimedOut else app.held_blob
    call = function.spawn(str(gate), tag, 12_000_000)
    worker, value = int(begun(site, tag)[0].split()[1]), keys.value(call.object_id, 1)
    redis = redis_server.client
    redis.config_set("maxmemory", redis.info("memory")["used_memory"] + 6_000_000)
    try:
        gate.touch()
        until(lambda: redis.exists(value), what="a part of it")
        if ending is CallCancelled:
            assert call.cancel()
        elif ending is WorkerLost:
            os.kill(worker, signal.SIGKILL)
        with pytest.raises(ending):
            call.get(timeout=10)
        assert not redis.exists(value)
    finally:
        redis.config_set("maxmemory", 0)
    assert app.add.spawn(1).get(timeout=20) == 1
    assert not redis.exists(value)


def test_nothing_stays_of_a_large_result_without_its_call(functions, redis_server, gate):
    """A function whose record is gone when it returns leaves no job, and no entry of RQ's list."""
    site, app = functions
    redis, call = redis_server.client, app.held_blob.spawn(str(gate), "recordless", 3_000_000)
    begun(site, "recordless")
    redis.delete(keys.call(call.object_id))
    gate.touch()
    until(lambda: not tuple(redis.scan_iter(f"*{call.object_id}*")), 20, "the end of its last key")
    started = rq_state.started_key(f"{site.name}:functions")
    until(lambda: not redis.zcard(started), 20, "the end of what RQ lists as running")


@pytest.fixture
def restored(site, redis_server, tmp_path):
    """Return a function that keeps a copy of what Redis has on disk, and one that goes back to it."""
    folder = redis_server.folder / "appendonlydir"

    def keep():
        shutil.copytree(folder, tmp_path / "copy")

    def go_back():
        redis_server.stop(signal.SIGKILL)
        shutil.rmtree(folder)
        shutil.move(tmp_path / "copy", folder)
        redis_server.start()

    return keep, go_back


def test_a_redis_that_lost_its_last_writes_hangs_nobody(site, redis_server, aside, gate, restored, seen):
    """When Redis comes back without the ends of calls, they are run again, and end; nobody waits for ever."""
    keep, go_back = restored
    hasty = site.start_web(gateway="wait_seconds=0.3")
    try:
        urls = [ask(hasty.port, f"/gate?tag=get&file={gate}").location]
        urls += [ask(hasty.port, f"/hash?tag=post&file={gate}", "POST", body=b"x").location]
        begun(site, "get")
        begun(site, "post")
        keep()
        gate.touch()
        assert [follow(hasty.port, url)[-1].status for url in urls] == [200, 200]
        go_back()
        back = time.monotonic()
        get, post = (aside.submit(follow, hasty.port, url) for url in urls)
        assert get.result(20)[-1].text == "passed get\n"
        assert post.result(20)[-1].json["length"] == 1
        seen("both outcomes, after its return", [time.monotonic() - back])
        assert ask(site.web.port, "/fast").status == 200
    finally:
        hasty.stop()
