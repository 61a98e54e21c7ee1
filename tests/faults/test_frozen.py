"""Workers that are frozen longer than their lease, and wake when others have taken over."""

import os
import signal
import socket
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest
from harness import ask, until
from remains import alive

from wsgi_timeout.store import keys

LEASE = 2.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), wait_seconds=40, worker_wait=20, lease_seconds=LEASE)


@pytest.fixture(scope="module")
def threaded(deploy):
    return deploy(
        pool=("--processes", "1", "--threads", "8"), wait_seconds=40, worker_wait=20, lease_seconds=LEASE
    )


@pytest.fixture
def aside():
    with ThreadPoolExecutor(10) as threads:
        yield threads


def begun(site, tag, runs=1):
    """Return the pid of the worker that runs the last of so many runs, once it does."""
    return int(until(lambda: site.runs(tag)[runs - 1 :], 20, f"run {runs} of {tag}")[0].split()[1])


class Frozen:
    """A pool with all its processes stopped, while another goes on."""

    def __init__(self, site):
        self._site = site
        self.pool = site.pool
        self.workers = self.pool.workers()
        for process in (psutil.Process(self.pool.pid), *self.workers):
            process.suspend()
        self.at = time.monotonic()
        site.pool = site.start_pool("--processes", "2")

    def wake(self):
        for process in (*self.workers, psutil.Process(self.pool.pid)):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def stop(self):
        self.wake()
        return self.pool.stop()


@pytest.fixture
def freeze():
    """Return a function that freezes a deployment's pool and starts another; it is woken at the end."""
    frozen = []

    def freeze(site):
        frozen.append(Frozen(site))
        return frozen[-1]

    yield freeze
    for each in frozen:
        each.stop()


def test_a_frozen_workers_get_is_answered_by_another(site, aside, gate, freeze, seen):
    """The client gets the body of the new owner; the old attempt, when it wakes, is refused and stopped."""
    waiting = aside.submit(ask, site.web.port, f"/numbers?size=800000&file={gate}&tag=frozen")
    old = psutil.Process(begun(site, "frozen"))
    frozen = freeze(site)
    new = begun(site, "frozen", 2)
    seen("frozen: second run", [time.monotonic() - frozen.at])
    assert new in {process.pid for process in site.pool.workers()}
    # Both attempts go on at the same time: the old one writes whatever it can before it is stopped.
    frozen.wake()
    gate.touch()
    answer = waiting.result()
    assert (answer.status, answer.body) == (200, array("Q", range(100_000)).tobytes())
    until(lambda: not alive(old), what="the old attempt's end")
    assert len(site.runs("frozen")) == 2
    # The pool that was frozen lives on with a new worker.
    assert until(lambda: {worker.pid for worker in frozen.pool.workers()} - {old.pid}, what="its new worker")
    assert [ask(site.web.port, "/fast").status for _ in range(4)] == [200] * 4


def test_a_frozen_workers_post_is_lost(site, aside, gate, freeze, seen):
    """A POST is given up with 502; its handler, when it wakes, ends without a second outcome."""
    waiting = aside.submit(ask, site.web.port, f"/hash?tag=post&file={gate}", "POST", body=b"x" * 200_000)
    old = psutil.Process(begun(site, "post"))
    frozen = freeze(site)
    answer = waiting.result()
    seen("the 502", [time.monotonic() - frozen.at])
    assert (answer.status, "interrupted" in answer.json["detail"]) == (502, True)
    frozen.wake()
    gate.touch()
    # An idle one beside it may have renewed its lease before it was found lost.
    until(lambda: not alive(old), what="the old attempt's end")
    assert len(site.runs("post")) == 1


def test_a_body_that_was_begun_is_never_continued_by_another(threaded, aside, gate, freeze, seen):
    """A response begun by a worker that froze breaks off: nothing of a second run is put behind it."""
    port, tags = threaded.web.port, [f"begun{number}" for number in range(6)]
    read = {tag: [] for tag in tags}
    sent = [aside.submit(read_all, port, f"/trickle?file={gate}&tag={tag}", read[tag]) for tag in tags]
    until(lambda: all(b"one\n" in b"".join(pieces) for pieces in read.values()), what="each first line")
    frozen = freeze(threaded)
    assert [waiting.result() for waiting in sent] == [False] * 6
    seen("until the last one broke off", [time.monotonic() - frozen.at])
    frozen.wake()
    gate.touch()
    until(lambda: not any(map(alive, frozen.workers)), what="the old attempts' end")
    assert all(b"".join(pieces).endswith(b"\r\n\r\n4\r\none\n\r\n") for pieces in read.values())
    assert [len(threaded.runs(tag)) for tag in tags] == [1] * 6


def read_all(port, target, pieces):
    """Read a response into a list until the server closes; returns whether it was whole."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        while piece := sock.recv(65536):
            pieces.append(piece)
    return b"".join(pieces).endswith(b"0\r\n\r\n")


def test_a_pool_whose_parent_is_frozen_is_given_up(deploy, aside, gate, seen):
    """What a pool ran is settled when its parent is frozen past its lease; its workers take no call then."""
    site = deploy(pool=("--processes", "3"), wait_seconds=40, worker_wait=20, lease_seconds=LEASE)
    client, leases, port = site.redis.client, keys.leases(site.name), site.web.port
    until(lambda: client.hlen(leases) == 3, 20, "three workers")
    old, workers, names = site.pool, site.pool.workers(), client.hkeys(leases)
    get = aside.submit(ask, port, f"/gate?file={gate}&tag=get")
    post = aside.submit(ask, port, "/slow?seconds=60&tag=post", "POST")
    assert begun(site, "get") != begun(site, "post")
    parent = psutil.Process(old.pid)
    parent.suspend()
    frozen = time.monotonic()
    try:
        site.pool = site.start_pool("--processes", "2")
        answer = post.result()
        seen("until the POST's 502", [time.monotonic() - frozen])
        assert (answer.status, "interrupted" in answer.json["detail"]) == (502, True)
        new = begun(site, "get", 2)
        seen("until the GET's second run", [time.monotonic() - frozen])
        gate.touch()
        assert get.result().text == "passed get\n"
        # The third one, which was idle, keeps its lease no longer than they.
        until(lambda: not any(client.hexists(leases, name) for name in names), what="the end of its leases")
        tags = [f"later{number}" for number in range(6)]
        assert [ask(port, f"/fast?tag={tag}", "POST").status for tag in tags] == [200] * 6
        served = {int(site.runs(tag)[0].split()[1]) for tag in tags}
        assert {new, *served}.isdisjoint(worker.pid for worker in workers)
        assert [len(site.runs(tag)) for tag in ("get", "post", *tags)] == [2, 1] + [1] * 6
    finally:
        parent.resume()
    until(lambda: not any(map(alive, workers)), what="their end")
    assert ask(port, "/fast").status == 200
    old.stop()


def test_what_a_frozen_worker_has_not_begun_goes_to_others(deploy, seen):
    """A call that comes to an idle process which is frozen alone is run by another, once, within a lease."""
    site = deploy(pool=("--processes", "2"), wait_seconds=40, worker_wait=20, lease_seconds=LEASE)
    client, port = site.redis.client, site.web.port
    until(lambda: client.hlen(keys.leases(site.name)) == 2, 20, "two workers")
    frozen, _ = site.pool.workers()
    frozen.suspend()
    began = time.monotonic()
    # Redis hands one of two to each of two that wait.
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(ask, port, f"/fast?tag=hostage{n}", "POST") for n in range(2)]
        assert [answer.result().text for answer in asked] == [f"fast hostage{n}\n" for n in range(2)]
    took = time.monotonic() - began
    seen("until both responses", [took])
    assert took < LEASE + 5
    frozen.resume()
    assert [ask(port, "/fast").status for _ in range(6)] == [200] * 6
    assert [len(site.runs(f"hostage{n}")) for n in range(2)] == [1, 1]


def test_one_frozen_process_of_a_live_pool_ends_with_its_deadline(deploy, seen):
    """A process that is frozen alone keeps its lease, from its parent; its call ends at its deadline."""
    site = deploy(pool=("--processes", "1"), wait_seconds=40, worker_wait=20, timeout=1, interrupt_grace=1)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(ask, site.web.port, "/slow?seconds=60&tag=alone")
        os.kill(begun(site, "alone"), signal.SIGSTOP)
        assert waiting.result().status == 504
    took = time.monotonic() - began - 1
    seen("after its deadline", [took])
    assert took < 5
    assert ask(site.web.port, "/fast").status == 200
    assert len(site.runs("alone")) == 1
