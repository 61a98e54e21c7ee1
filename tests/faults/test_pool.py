"""A pool's parent and its children: whom an interrupt is for, and what the parent survives."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from faults.proxy import Break
from harness import (
    APPS,
    Process,
    ask,
    environment,
    follow,
    function_workers,
    joined,
    misfits,
    preloaded,
    until,
)
from remains import alive
from rq.command import send_shutdown_command

from wsgi_timeout.errors import CallInterrupted, CallTimedOut, WorkerLost
from wsgi_timeout.functions.client import client
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout_jobs.process.interrupts import SIGNAL, Interrupts

#: Long enough for a handler to end in it on a busy machine.
GRACE = 1.5
#: Of web calls, and of functions that do not say otherwise.
TIMEOUT = 1.5

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def start(deploy, proxy, threads):
    """Start two processes for web calls, and one for functions."""
    options = ("--processes", "2", "--function-processes", "1", "--threads", str(threads))
    site = deploy(
        "resisting:stub",
        server=proxy,
        pool=options,
        secret="any",
        wait_seconds=30,
        worker_wait=20,
        timeout=TIMEOUT,
        retry_backoff=0.05,
        interrupt_grace=GRACE,
    )
    until(lambda: function_workers(site.redis, site.name) == 1, 20, "the process for functions")
    return site


@pytest.fixture(scope="module")
def site(deploy, proxy):
    return start(deploy, proxy, 1)


@pytest.fixture(scope="module")
def threaded(deploy, proxy):
    return start(deploy, proxy, 4)


@contextmanager
def functions_of(site):
    """Give what is imported from the app, to spawn its functions."""
    with joined(site.redis.url, site.name, site.env):
        import resisting

        yield resisting
        client().redis.close()


@pytest.fixture
def aside():
    with ThreadPoolExecutor(10) as threads:
        yield threads


def begun(site, tag):
    """Return the pid of the worker that runs a handler, once it does."""
    return int(until(lambda: site.runs(tag), what=f"the begin of {tag}")[0].split()[1])


def test_an_interrupt_is_for_one_attempt(site, seen):
    """A function that makes an error of its interrupt is retried, and each run has the whole timeout."""
    with functions_of(site) as functions:
        began = time.monotonic()
        assert functions.converts.spawn("converts").get(timeout=20) == 3
        seen("the third run's result", [time.monotonic() - began])
    # What an interrupted run leaves behind reaches no other.
    assert len({run.split()[1] for run in site.runs("converts")}) == 3
    assert site.pool.popen.poll() is None


@pytest.mark.parametrize("which", ["site", "threaded"])
def test_what_ended_in_time_is_not_lost_with_redis_away(request, proxy, aside, gate, seen, which):
    """A handler that ends within its timeout is answered with its result, though Redis comes back later."""
    site, sizes = request.getfixturevalue(which), (1, 3_000_000)
    pages = [f"/held?file={gate}&tag=page&size={size}" for size in sizes]
    answers = [aside.submit(follow, site.web.port, page, "POST") for page in pages]
    with functions_of(site) as functions:
        call = functions.held.spawn(str(gate), "call", sizes[1])
        until(lambda: (len(site.runs("page")), len(site.runs("call"))) == (2, 1), what="all at work")
        began = time.monotonic()
        proxy.refuse()
        gate.touch()
        until(lambda: time.monotonic() - began > TIMEOUT + GRACE + 0.5)
        proxy.heal()
        healed = time.monotonic()
        until(lambda: call.status()["state"] == "ended", what="its result")
        assert len(call.get(timeout=20)) == sizes[1]
    chains = [waiting.result() for waiting in answers]
    seen("all results, after its return", [time.monotonic() - healed])
    assert [(chain[-1].status, len(chain[-1].body)) for chain in chains] == [(200, size) for size in sizes]
    assert (len(site.runs("page")), len(site.runs("call"))) == (2, 1)


def test_what_goes_on_after_its_response_has_a_deadline(site):
    """A handler that hangs when all of its response is delivered is interrupted at its deadline."""
    answer = ask(site.web.port, "/goes-on?tag=on", "POST")
    assert (answer.status, answer.text) == (200, "all of it\n")
    assert not site.runs("on-finally")
    until(lambda: site.runs("on-finally"), what="its finally")
    taken = [float(site.runs(tag)[0].split()[2]) for tag in ("on", "on-finally")]
    assert TIMEOUT - 0.1 <= taken[1] - taken[0] < TIMEOUT + 2


def records(site):
    """Return the records of a site's calls."""
    redis = site.redis.client
    found = redis.scan_iter(match=keys.call("*"))
    return [record for record in found if redis.hget(record, "name") == site.name.encode()]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 4])
def test_what_goes_on_after_its_response_is_let_be(deploy, threads):
    """A handler goes on when its response is delivered, and all of its call is gone from Redis."""
    site = deploy("resisting:stub", pool=("--processes", "1", "--threads", str(threads)), secret="any")
    assert ask(site.web.port, "/goes-on?tag=be&seconds=5", "POST").text == "all of it\n"
    begun(site, "be")
    until(lambda: not records(site), 4, "the end of its record")
    until(lambda: site.runs("be-finally"), what="its end")
    assert site.runs("be-end")


def test_a_result_that_finds_no_room_has_a_deadline(site, redis_server, gate, seen):
    """A large result that meets a full Redis is given up at its deadline; its process goes on."""
    with functions_of(site) as functions:
        call = functions.held.spawn(str(gate), "full", 3_000_000)
        worker = begun(site, "full")
        began = time.monotonic()
        redis_server.client.config_set("maxmemory", "1mb")
        gate.touch()
        try:
            with pytest.raises(CallTimedOut):
                call.get(timeout=20)
            seen("CallTimedOut, after its deadline", [time.monotonic() - began - TIMEOUT])
        finally:
            redis_server.client.config_set("maxmemory", "0")
    assert worker in {process.pid for process in site.pool.workers()}


def test_a_cancel_whose_word_is_lost_ends_the_handler(site, proxy, seen):
    """A cancel that Redis has handed to the pool, which never got it, is noticed all the same."""
    with functions_of(site) as functions:
        call = functions.hangs.spawn("hangs")
        begun(site, "hangs")
        lost = lose_word_of(call, proxy)
        assert call.cancel()
        cancelled = time.monotonic()
        until(lambda: site.runs("hangs-finally"), what="its finally")
        seen("its finally, from the cancel", [time.monotonic() - cancelled])
        assert lost.struck


def test_a_cancel_whose_word_is_lost_ends_a_process_of_threads(threaded, proxy):
    """With threads such a cancel has the process replaced, as any other has."""
    with functions_of(threaded) as functions:
        call = functions.hangs.spawn("threaded")
        worker = begun(threaded, "threaded")
        lost = lose_word_of(call, proxy)
        assert call.cancel()
        until(lambda: not psutil.pid_exists(worker), what="its end")
        assert lost.struck
        assert functions.held.spawn(os.devnull, "next", 1).get(timeout=20) == b"x"


def lose_word_of(call, proxy):
    """Have the reply lost in which Redis tells the pool that a call was cancelled."""
    return proxy.break_at(
        Break.AFTER, lambda exchange: exchange.name == "LPOP" and call.object_id.encode() in exchange.reply
    )


@pytest.mark.parametrize("which", ["site", "threaded"])
def test_a_result_that_redis_cannot_take(request, gate, which):
    """A call whose result is refused for good ends as lost, and says why; its process goes on."""
    site = request.getfixturevalue(which)
    with functions_of(site) as functions:
        call = functions.patient.spawn(str(gate), "untaken", 3_000_000)
        worker = begun(site, "untaken")
        site.redis.client.set(keys.value(call.object_id, 1), "not a hash", ex=60)
        gate.touch()
        with pytest.raises(WorkerLost, match=r"could not be recorded: .*WRONGTYPE"):
            call.get(timeout=20)
    assert worker in {process.pid for process in site.pool.workers()}


@pytest.mark.parametrize("which", ["site", "threaded"])
def test_an_outcome_that_redis_cannot_take(request, gate, which):
    """A call whose record is none any more takes no outcome, and its process goes on to the next call."""
    site = request.getfixturevalue(which)
    with functions_of(site) as functions:
        call = functions.patient.spawn(str(gate), f"unrecorded-{which}", 1)
        worker = begun(site, f"unrecorded-{which}")
        record = keys.call(call.object_id)
        site.redis.client.delete(record)
        site.redis.client.set(record, "not a hash", ex=60)
        gate.touch()
        functions.patient.spawn(str(gate), f"after-{which}", 1).get(timeout=30)
        assert begun(site, f"after-{which}") == worker
        site.redis.client.delete(record)


def test_a_failed_command_hides_no_interrupt():
    """An interrupt that comes within a command to Redis which fails is raised when it has failed."""
    before, asked = signal.getsignal(SIGNAL), []
    interrupts = Interrupts(lambda: "timeout" if asked else "")
    interrupts.install()

    def fail():
        with interrupts.armed(), interrupts.shield():
            asked.append(True)
            os.kill(os.getpid(), SIGNAL)
            raise ConnectionError

    try:
        with pytest.raises(CallInterrupted):
            fail()
    finally:
        signal.signal(SIGNAL, before)


def test_an_interrupt_before_a_handler_is_raised_when_it_begins():
    """An interrupt that comes when a call is known to run, and its handler has not begun, is not lost."""
    before = signal.getsignal(SIGNAL)
    interrupts = Interrupts(lambda: "cancelled")
    interrupts.install()
    begun = []
    try:
        os.kill(os.getpid(), SIGNAL)
        with pytest.raises(CallInterrupted, match="cancelled"), interrupts.armed():
            begun.append(True)
    finally:
        signal.signal(SIGNAL, before)
    assert not begun


@pytest.mark.parametrize(("seconds", "status"), [(0, 200), (30, 504)])
def test_what_ends_with_an_exit_has_one_outcome(site, seconds, status):
    """A GET whose `close()` wants to end the process runs once, and is answered, also at its deadline."""
    assert ask(site.web.port, f"/leaves?tag=leaves-{seconds}&seconds={seconds}").status == status
    assert len(site.runs(f"leaves-{seconds}")) == 1


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Return a path: while a file is there, no process that was started meanwhile can fork."""
    path = tmp_path / "refused"
    monkeypatch.setenv("LD_PRELOAD", preloaded(Path(__file__).with_name("forks.c"), tmp_path))
    monkeypatch.setenv("FORKS_REFUSED", str(path))
    return path


def test_a_fork_that_is_refused_ends_nobody(deploy, refused, seen):
    """A pool that cannot fork serves with the workers that it has, and starts others when it can."""
    site = deploy(pool=("--processes", "2"), wait_seconds=20, worker_wait=20)
    dead, other = (process.pid for process in until(lambda: two_workers(site), 20, "two workers"))
    assert ask(site.web.port, "/fast").status == 200  # gunicorn has forked
    refused.touch()
    os.kill(dead, signal.SIGKILL)
    site.pool.wait_for("no new worker can be started")
    assert ask(site.web.port, "/pid").json["pid"] == other
    refused.unlink()
    allowed = time.monotonic()
    assert other in {process.pid for process in until(lambda: two_workers(site), 20, "two workers")}
    seen("a new worker, from when it can be forked", [time.monotonic() - allowed])


def two_workers(site):
    """Return both workers once both take calls."""
    workers = [process for process in site.pool.workers() if alive(process)]
    return len(workers) == site.redis.client.hlen(keys.leases(site.name)) == 2 and workers


#: `wsgi-timeout`, whose pool notices nothing of its children while a file is there.
SLOW = """
import os
from wsgi_timeout.serving.cli import main
from wsgi_timeout_jobs.pool.pool import Pool

def unless_held(pool):
    if not os.path.exists(os.environ["HELD"]):
        look(pool)

look, Pool._look_at_children = Pool._look_at_children, unless_held
main()
"""


@pytest.mark.slow
def test_a_cancel_in_a_process_that_the_pool_does_not_know_yet(deploy, tmp_path):
    """A call that is cancelled in a process which came up since the pool last looked ends that one alone."""
    options = ("--processes", "1", "--function-processes", "1", "--threads", "4")
    site, held = deploy("resisting:stub", pool=options, secret="any"), tmp_path / "held"
    site.pool.stop()
    env = {**site.env, "REDIS_URL": site.redis.url, "HELD": str(held)}
    command = [sys.executable, "-c", SLOW, "worker", site.target, "--name", site.name, *options]
    site.pool = Process(command, env=env, cwd=APPS)
    with functions_of(site) as functions:
        first, second = functions.hangs.spawn("first"), functions.hangs.spawn("second")
        until(lambda: site.runs("second"), 20, "both in one process")
        held.touch()
        (worker,) = site.redis.client.hkeys(keys.leases(f"{site.name}:functions"))
        send_shutdown_command(site.redis.client, worker.decode())
        until(lambda: function_workers(site.redis, site.name) == 2, 20, "the next process")
        third = functions.hangs.spawn("third")
        new = begun(site, "third")
        third.cancel()
        inbox = keys.inbox(site.redis.client.hget(keys.worker(worker.decode()), "pool").decode())
        until(lambda: not site.redis.client.exists(inbox), what="the pool's look at its inbox")
        held.unlink()
        until(lambda: not psutil.pid_exists(new), what="the end of the new process")
        assert site.pool.popen.poll() is None
        assert [call.status()["state"] for call in (first, second)] == ["running", "running"]
        for call in (first, second):
            call.cancel()


#: `wsgi-timeout`, whose first worker freezes right after it has made itself known.
FROZEN = """
import os, signal
from contextlib import suppress
from wsgi_timeout.store.workers import Workers
from wsgi_timeout.serving.cli import main

def and_freeze(*args):
    register(*args)
    with suppress(FileExistsError), open(os.environ["FROZEN"], "x") as file:
        file.write(str(os.getpid()))
        file.flush()
        os.kill(os.getpid(), signal.SIGSTOP)

register, Workers.register = Workers.register, and_freeze
main()
"""


@pytest.mark.slow
def test_a_worker_that_freezes_before_its_first_call(deploy, aside, tmp_path, seen):
    """A worker that loses its lease before it took a call takes none: a POST runs once, in the next one."""
    site, frozen = deploy(pool=("--processes", "1"), wait_seconds=40), tmp_path / "frozen"
    before = aside.submit(ask, site.web.port, "/slow?tag=before&seconds=2")
    until(lambda: site.runs("before"), what="a busy worker")
    waiting = aside.submit(ask, site.web.port, "/slow?tag=frozen&seconds=3", "POST")
    until(lambda: site.redis.client.llen(rq_state.queue_key(site.name)) == 1, what="the call in the queue")
    site.pool.stop()
    assert before.result().status == 200
    env = {**site.env, "REDIS_URL": site.redis.url, "FROZEN": str(frozen)}
    command = [sys.executable, "-c", FROZEN, "worker", site.target, "--name", site.name, "--processes", "1"]
    site.pool = Process(command, env=env, cwd=APPS)
    pid = int(until(lambda: frozen.exists() and frozen.read_text(), 20, "the frozen worker"))
    until(lambda: not site.redis.client.exists(keys.leases(site.name)), 20, "the loss of its lease")
    before = misfits(site.redis)
    os.kill(pid, signal.SIGCONT)
    resumed = time.monotonic()
    assert waiting.result().status == 200
    # It did not even ask: Redis would have refused it, since it was counted as gone.
    assert misfits(site.redis) == before
    seen("the response, with its 3 s", [time.monotonic() - resumed])
    assert [int(run.split()[1]) == pid for run in site.runs("frozen")] == [False]


#: `wsgi-timeout`, with workers that the system lets run only when their parent is gone.
LATE = """
import os, time
from wsgi_timeout.serving.cli import main

def wait():
    while os.getppid() == parent:
        time.sleep(0.01)

parent = os.getpid()
os.register_at_fork(after_in_child=wait)
main()
"""


def test_a_worker_whose_parent_is_dead_before_it_begins(redis_server, seen):
    """A parent that dies right after a fork leaves no worker behind that would serve without it."""
    env = {**environment(), "REDIS_URL": redis_server.url}
    pool = Process([sys.executable, "-c", LATE, "worker", "basic:app", "--name", "late"], env=env, cwd=APPS)
    try:
        (child,) = until(pool.descendants, 20, "its fork")
        pool.popen.kill()
        killed = time.monotonic()
        pool.popen.wait()
        try:
            until(lambda: not alive(child), 3, "the end of its child")
            seen("its end", [time.monotonic() - killed])
        finally:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    finally:
        pool.stop()
