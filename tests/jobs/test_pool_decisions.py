"""What a pool and its processes decide: whose call it is, whom a command is for, when to start again."""

import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import pytest
import redis
from call_steps import a_request, fresh_calls, running
from flask import Flask
from harness import APPS, Pool, ask, until
from rq.command import send_command
from werkzeug.test import create_environ

from wsgi_timeout import RequestTimeouts
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.log_once import LogOnce
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys
from wsgi_timeout.store.messages import ResponseHead
from wsgi_timeout.store.record import Attempt, Outcome
from wsgi_timeout_jobs.apps.offered import of_target
from wsgi_timeout_jobs.pool.child import Child
from wsgi_timeout_jobs.pool.children import Children, Served
from wsgi_timeout_jobs.pool.deadlines import Deadlines
from wsgi_timeout_jobs.pool.forked import EXIT_LOAD_FAILED, EXIT_RELOAD, _load_failed
from wsgi_timeout_jobs.pool.options import PoolOptions
from wsgi_timeout_jobs.pool.pool import Pool as JobsPool
from wsgi_timeout_jobs.pool.queue_keeper import QueueKeeper
from wsgi_timeout_jobs.pool.records import ended_elsewhere, is_left
from wsgi_timeout_jobs.pool.signals import tell_systemd
from wsgi_timeout_jobs.process.board import Board
from wsgi_timeout_jobs.worker.intake import Intake

#: Writes the moment of each load, and can be loaded as long as a file is there.
FAILS_LATER = """
import os, time
from pathlib import Path

with Path(os.environ["LOADS"]).open("a") as loads:
    loads.write(f"{time.monotonic()}\\n")
from basic import app
if not Path(os.environ["LOADS"]).with_name("may-load").exists():
    raise RuntimeError("it cannot be loaded now")
"""


@pytest.mark.parametrize(
    ("state", "attempt", "outcome", "expected"),
    [
        (b"running", b"1", None, False),
        (b"ended", b"1", b"done", False),
        (b"ended", b"1", b"cancelled", True),
        (b"ended", b"1", b"timeout", True),
        (b"ended", b"1", b"lost", True),
        (b"running", b"2", None, True),
        (b"running", b"1", b"cancelled", False),
        (None, None, None, True),
    ],
)
def test_whose_call_it_is(state, attempt, outcome, expected):
    """A call that others ended, or run by now, is not ours any more; one that its handler ended still is."""
    assert ended_elsewhere(SimpleNamespace(attempt=1), [state, attempt, outcome]) is expected


@pytest.mark.parametrize("stopping", [False, True])
@pytest.mark.parametrize("at_risk", [False, True])
@pytest.mark.parametrize("suspended", [False, True])
def test_when_a_worker_takes_nothing(stopping, at_risk, suspended):
    """A worker takes nothing while it stops, or is suspended, or its lease is at risk: each is enough."""
    worker = SimpleNamespace(
        stopping=stopping, _board=SimpleNamespace(suspended=suspended), _lease_at_risk=lambda: at_risk
    )
    assert Intake._idle(worker) is (stopping or at_risk or suspended)


def test_an_error_that_nobody_expected_keeps_a_pool_going(caplog):
    """Whatever one part of a pool's round raises is logged once; the other parts have their turn."""
    done = []

    def fails():
        done.append("failed")
        raise LookupError("an odd answer")

    children = SimpleNamespace(
        spawn_missing=lambda: done.append("spawned"),
        check_memory=fails,
        check_stop=lambda: done.append("stop"),
    )
    pool = SimpleNamespace(
        _look_at_children=fails,
        _children=children,
        _keep=lambda: done.append("kept"),
        _deadlines=SimpleNamespace(check=lambda: done.append("deadlines")),
        _metrics=None,
        _log_once=LogOnce("pool"),
    )
    for _ in range(2):
        JobsPool._step(pool)
    assert done == ["failed", "spawned", "kept", "failed", "deadlines", "spawned", "stop"] * 2
    assert caplog.text.count("LookupError: an odd answer") == 1


def test_a_part_that_needs_redis_keeps_no_other_from_its_turn():
    """An odd answer of Redis is passed over, one that is away ends the round."""
    pool = SimpleNamespace(_log_once=LogOnce("pool"), _note_away=lambda _error: None)

    def raises(error):
        raise error

    assert JobsPool._answers(pool, lambda: raises(ValueError("no number")))
    assert not JobsPool._answers(pool, lambda: raises(redis.exceptions.ConnectionError()))


def test_a_pool_ends_a_call_with_the_calls_own_ttl(redis_server):
    """How long an outcome of the pool is kept is the route's `result_ttl`, which its call was made with."""
    with fresh_calls(redis_server, "own-ttl") as calls:
        call = running(calls, request=a_request(result_ttl=30.0))
        keeper = QueueKeeper(calls.redis, calls.name, 10)
        keeper.end(call.id, Outcome.TIMEOUT, "", 1)
        keeper.settle()
        assert calls.look(call.id).outcome == Outcome.TIMEOUT
        assert 25 < calls.redis.ttl(keys.call(call.id)) <= 30


def test_the_slots_of_a_board_are_aligned():
    """A deadline lies in one machine word, and what is read with it in as few cache lines as may be."""
    board = Board(64)
    starts = [board._start(slot) for slot in range(board.slots)]
    assert {start % 64 for start in starts} == {0}
    for slot in range(board.slots):
        board.begin(slot, Attempt(f"fc-{slot}", slot + 1, "w"), 1e9 + slot / 3)
    assert [(each.slot, each.attempt_of, each.deadline) for each in board.running()] == [
        (slot, (f"fc-{slot}", slot + 1), 1e9 + slot / 3) for slot in range(board.slots)
    ]


@pytest.mark.parametrize("extensions", [(), [], None, "wsgi_timeout", {"wsgi_timeout": 3}, {}])
def test_an_app_may_have_extensions_of_its_own(extensions):
    """An attribute `extensions` that is not Flask's says nothing to a worker."""

    def app(_environ, _start_response):
        return []

    app.extensions = extensions
    assert of_target(app, queue="").apps == {"": app}


@pytest.mark.parametrize(
    ("given", "lines"), [({}, 0), ({"only": ["/reports/*"]}, 1)], ids=["bare", "configured"]
)
def test_an_extension_that_is_not_asked_is_told(given, lines, caplog):
    """A request that a front before the app made says once that the settings in its code do not count."""
    app = Flask("legacy")
    app.testing = True
    RequestTimeouts(app, **given)
    offered = of_target(app, queue="").apps[""]
    for _ in range(2):
        list(offered(create_environ("/"), lambda _status, _headers, _error=None: lambda _data: None))
    assert caplog.text.count("do not count") == lines


class Edits:
    """A file that changes when it is told to, as `Reloader.wait` sees it."""

    def __init__(self):
        self.changed = threading.Event()

    def wait(self):
        assert self.changed.wait(20)


@pytest.mark.parametrize(
    ("error", "loaded_before", "code"),
    [
        (ConfigurationError("no such module"), False, EXIT_LOAD_FAILED),
        (ConfigurationError("no such module"), True, EXIT_RELOAD),
        (RuntimeError("a typing error"), False, EXIT_RELOAD),
        (RuntimeError("a typing error"), True, EXIT_RELOAD),
    ],
)
def test_a_failed_load_under_reload(error, loaded_before, code):
    """With `--reload` an app that fails waits for an edit; what never was a target ends the pool at once."""
    edits = Edits()
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(_load_failed, error, edits, loaded_before=loaded_before)
        if code == EXIT_RELOAD:
            assert not ended.done()
        edits.changed.set()
        assert ended.result() == code
    assert _load_failed(error, None, loaded_before=loaded_before) == EXIT_LOAD_FAILED


def test_a_stop_command_is_for_one_worker(deploy, gate):
    """A call is stopped by a command to the worker that runs it, and by none to another one."""
    site = deploy(pool=("--processes", "2"), wait_seconds=20)
    with ThreadPoolExecutor(2) as threads:
        tags = ("one", "two")
        clients = {
            tag: threads.submit(ask, site.web.port, f"/gate?tag={tag}&file={gate}&slow=1") for tag in tags
        }
        until(lambda: all(site.runs(tag) for tag in tags), what="both calls")
        pids = {tag: site.runs(tag)[0].split()[1] for tag in tags}
        worker, call = {}, {}
        for name in site.redis.client.hkeys(keys.leases(site.name)):
            pid = site.redis.client.hget(f"rq:worker:{name.decode()}", "pid").decode()
            (held,) = site.redis.client.lrange(keys.held(name.decode()), 0, -1)
            tag = next(tag for tag in tags if pids[tag] == pid)
            worker[tag], call[tag] = name.decode(), held.decode()
        # Commands on one channel are followed in their order.
        send_command(site.redis.client, worker["one"], "stop-job", job_id=call["two"])
        send_command(site.redis.client, worker["one"], "stop-job", job_id=call["one"])
        assert clients["one"].result().status == 410
        assert site.redis.client.hget(keys.call(call["two"]), "state") == b"running"
        gate.touch()
        assert clients["two"].result().status == 200


def test_starts_that_fail_are_tried_less_and_less(redis_server, tmp_path, monkeypatch):
    """When the app cannot be loaded any more, each next start comes after a pause twice as long."""
    (tmp_path / "later.py").write_text(FAILS_LATER)
    (tmp_path / "may-load").touch()
    loads = tmp_path / "loads"
    monkeypatch.setenv("LOADS", str(loads))
    target = str(tmp_path / "later.py:app")
    pool = Pool(target, "fails-later", redis_server.url, "--processes", "1", cwd=APPS)
    try:
        (tmp_path / "may-load").unlink()
        (child,) = pool.workers()
        child.kill()
        until(lambda: len(loads.read_text().splitlines()) >= 4, 30, "three starts that fail")
        moments = [float(line) for line in loads.read_text().splitlines()]
        pauses = [later - earlier for earlier, later in pairwise(moments[1:4])]
        # Least ones: a busy machine only adds to them.
        assert [pause >= least for pause, least in zip(pauses, (1.0, 2.0), strict=True)] == [True] * 2
        (tmp_path / "may-load").touch()
    finally:
        pool.stop()
    assert time.monotonic() > moments[-1]


@pytest.mark.parametrize(
    ("ready", "spare", "started"),
    [
        (0, 0, ["worker", "worker", "spare"]),
        (1, 0, ["worker", "spare"]),
        (2, 0, ["spare"]),
        (2, 1, []),
        (1, 1, ["spare"]),
        (0, 1, ["worker", "spare"]),
    ],
)
def test_missing_processes_are_started(ready, spare, started):
    """A spare process takes the place of one that is missing, and what is missing then is started."""
    children = Children(Served("app", "app", "url", "inbox"), Settings(), PoolOptions(processes=2, spare=1))
    children.ever_ready = True
    board = SimpleNamespace(ready=True, loaded=True)
    for pid in range(ready + spare):
        child = Child(
            pid, f"w{pid}", "", board, turn_fd=os.open(os.devnull, os.O_WRONLY) if pid >= ready else -1
        )
        children._by_reaper[pid] = child
    spawned = []
    children._spawn = lambda _queue, *, spare=False: spawned.append("spare" if spare else "worker")
    children._spawn_missing_of("")
    assert spawned == started


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, True),
        ({"left": None}, False),
        ({"left": b"junk"}, False),
        ({"left": b"101"}, False),
        ({"readers": b"inbox"}, False),
        ({"readers": b"inbox", "seen": b"96", "marked": b"90"}, False),
        ({"readers": b"inbox", "seen": b"94"}, True),
        ({"readers": b"inbox", "marked": b"94"}, True),
        ({"window": b"60"}, False),
        ({"window": b"1"}, True),
        ({"window": b"0.2"}, True),
        ({"window": b"junk"}, True),
        ({"window": b"nan"}, False),
        ({"head": None}, False),
        ({"head": ResponseHead("200 OK", [("content-length", "5")]).pack()}, False),
    ],
)
def test_when_a_response_is_given_up_that_nobody_reads(changes, left):
    """An endless response without a reader for so long is left, a resumable one after its window."""
    there = {"head": ResponseHead("200 OK", []).pack(), "left": b"100"}
    there |= dict.fromkeys(("readers", "window", "seen", "marked"))
    head, *stream = {**there, **changes}.values()
    assert is_left(head, stream, 101.5, 1) is left


@pytest.mark.parametrize(
    ("ready", "loaded", "code", "pauses", "load_failed"),
    [
        (True, True, 1, False, False),
        (False, True, 1, False, False),
        (False, False, EXIT_RELOAD, False, False),
        (False, False, 1, True, False),
        (False, False, EXIT_LOAD_FAILED, True, True),
        (False, True, EXIT_LOAD_FAILED, True, True),
    ],
)
def test_what_the_end_of_a_child_means(ready, loaded, code, pauses, load_failed):
    """A child that did not begin is tried again after a pause; the first that cannot load ends the pool."""
    children = Children(Served("app", "app", "url", "inbox"), Settings(), PoolOptions())
    board = SimpleNamespace(ready=ready, loaded=loaded)
    children._note_end(Child(1, "w1", "", board, keeper_name="app"), code)
    assert (children._spawn_after > time.monotonic()) is pauses
    assert children.load_failed is load_failed


def test_a_refused_fork_is_tried_again_later(monkeypatch):
    """When the system starts no process, the pool does not ask again and again."""
    children = Children(Served("app", "app", "url", "inbox"), Settings(), PoolOptions())
    asked = []

    def refuse(queue):
        asked.append(queue)
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(children, "_spawn_missing_of", refuse)
    began = time.monotonic()
    children.spawn_missing()
    assert children._spawn_after > began
    monkeypatch.setattr(time, "monotonic", lambda: children._spawn_after - 0.1)
    children.spawn_missing()
    assert asked == [""]
    monkeypatch.setattr(time, "monotonic", lambda: children._spawn_after + 0.1)
    children.spawn_missing()
    assert asked == ["", ""]


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_systemd_is_told_by_an_abstract_socket(monkeypatch):
    """A `NOTIFY_SOCKET` that begins with @ is in the abstract namespace (sd_notify(3))."""
    name = f"wsgi-timeout-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        tell_systemd("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_a_killed_process_is_logged_with_its_calls(caplog):
    """A kill after the grace names the calls that did not end, or says that it was the last one."""
    killed = []
    runs = SimpleNamespace(call_id="fc-late", attempt_of=("fc-late", 1), settling=False)
    board = SimpleNamespace(running=lambda: [runs])
    child = Child(1, "w1", "", board, interrupted={("fc-late", 1): None}, interrupted_since=0.0)
    object.__setattr__(child, "kill", lambda: killed.append(child.name))
    Deadlines._kill_after_grace(SimpleNamespace(_grace=0.0), child)
    board.running = list
    Deadlines._kill_after_grace(SimpleNamespace(_grace=0.0), child)
    assert killed == ["w1", "w1"]
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("fc-late: ")
    assert second.startswith("its last call: ")


@pytest.mark.parametrize(("threads", "logged"), [(1, 0), (2, 1)])
def test_a_timeout_is_logged_once(caplog, threads, logged):
    """The pool logs a timeout of handlers in threads; with one thread the worker has logged it."""
    ended = []
    keeper = SimpleNamespace(end=lambda *what: ended.append(what), settle=lambda: None)
    deadlines = SimpleNamespace(_threads=threads, _keepers={"app": keeper})
    child = SimpleNamespace(keeper_name="app")
    run = SimpleNamespace(call_id="fc-1", attempt=1)
    Deadlines.record(deadlines, child, run, Outcome.TIMEOUT)
    detail = "the handler ran longer than its timeout"
    assert ended == [("fc-1", Outcome.TIMEOUT, detail, 1)]
    assert [record.getMessage() for record in caplog.records] == [f"fc-1: {detail}"] * logged
