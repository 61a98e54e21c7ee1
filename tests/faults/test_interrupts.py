"""Timeouts and cancels: what is raised in the handler, when it is killed, and what its neighbours notice."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from harness import ask, until

from wsgi_timeout.store.record import Attempt
from wsgi_timeout_jobs.process.board import Board

TIMEOUT, GRACE = 0.5, 5.0
#: Seconds after which a client is told, in spite of a handler that still cleans up.
TOLD = 2.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        "faulty:app",
        pool=("--processes", "1"),
        wait_seconds=40,
        worker_wait=20,
        timeout=TIMEOUT,
        interrupt_grace=GRACE,
    )


@pytest.fixture(scope="module")
def patient(site):
    """A web process that answers 202, and whose calls may run for long."""
    web = site.start_web(gateway="timeout=60, wait_for_response=False")
    yield web
    web.stop()


@pytest.fixture(scope="module")
def threaded(deploy):
    return deploy(
        "faulty:app",
        pool=("--processes", "1", "--threads", "4"),
        wait_seconds=40,
        worker_wait=20,
        timeout=TIMEOUT,
        interrupt_grace=GRACE,
    )


@pytest.fixture(scope="module")
def patient_threaded(threaded):
    web = threaded.start_web(gateway="timeout=60")
    yield web
    web.stop()


@pytest.fixture
def aside():
    with ThreadPoolExecutor(4) as threads:
        yield threads


def pid(site):
    return int(ask(site.web.port, "/pid").json["pid"])


def begun(site, tag):
    """Return the pid of the worker that runs a handler, once it does."""
    return int(until(lambda: site.runs(tag), what=f"the begin of {tag}")[0].split()[1])


def gone(process_id):
    try:
        return psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_timeout_is_raised_in_the_handler(site, seen):
    """At its deadline a handler is left through its `finally`; an app that catches errors sees none."""
    began = time.monotonic()
    answer = ask(site.web.port, "/cleans-up?tag=timeout")
    seen("after its deadline", [time.monotonic() - began - TIMEOUT])
    assert (answer.status, answer.json["detail"]) == (504, "it took longer than is allowed")
    site.web.wait_for(
        f"reference {answer.json['reference']}: .*the handler ran longer than its timeout, 0.5 s"
    )
    assert len(site.runs("timeout-finally")) == 1
    assert pid(site) != begun(site, "timeout")


def test_a_cancel_is_raised_in_the_handler(site, patient):
    """A cancel leaves the handler through its `finally` too; the result is 410, another process goes on."""
    urls = ask(patient.port, "/cleans-up?tag=cancel").json
    worker = begun(site, "cancel")
    assert ask(patient.port, urls["status_url"], "DELETE").status == 202
    answer = ask(patient.port, urls["result_url"])
    assert (answer.status, "cancelled" in answer.json["detail"]) == (410, True)
    until(lambda: site.runs("cancel-finally"), what="its finally")
    until(lambda: "in cleans_up" in site.pool.output, what="where it stood, in the log")
    assert pid(site) != worker


def test_a_long_clean_up_keeps_nobody_waiting(site):
    """A `finally` longer than 2 s, within the grace, runs to its end; the client is told before."""
    began = time.monotonic()
    assert ask(site.web.port, "/cleans-up?tag=long&seconds=4").status == 504
    assert TIMEOUT + TOLD <= time.monotonic() - began < TIMEOUT + 4
    assert not site.runs("long-finally")
    until(lambda: site.runs("long-finally"), what="its finally")
    assert pid(site) != begun(site, "long")


def test_a_clean_up_beyond_the_grace_is_killed(site):
    """A `finally` that takes longer than the grace is cut off, and a new process serves the next call."""
    began = time.monotonic()
    assert ask(site.web.port, "/cleans-up?tag=endless&seconds=60").status == 504
    assert time.monotonic() - began < TIMEOUT + 5
    worker = begun(site, "endless")
    until(lambda: gone(worker), GRACE + 2, "its end")
    assert time.monotonic() - began >= TIMEOUT + GRACE
    assert pid(site) != worker
    assert not site.runs("endless-finally")


def test_an_interrupt_never_hits_the_next_call():
    """A reason that the parent leaves for a call which has just ended does not interrupt the next one."""
    board = Board(1)
    board.begin(0, Attempt("fc-first", 1, "w"), time.monotonic())
    (first,) = board.running()
    board.interrupt(first, "timeout")
    assert board.reason(0) == "timeout"
    board.clear(0, failed=True)
    board.begin(0, Attempt("fc-next", 1, "w"), time.monotonic())
    board.interrupt(first, "timeout")
    assert board.reason(0) == ""
    board.interrupt(board.running()[0], "cancelled")
    assert board.reason(0) == "cancelled"


@pytest.mark.parametrize("end", ["timeout", "cancel"])
def test_neighbours_of_an_ended_call_end_in_peace(
    threaded, patient_threaded, aside, tmp_path, gate, seen, end
):
    """With threads a call ends at once; its neighbours, one in a socket's read, go on and are delivered."""
    path, tag = tmp_path / "socket", f"neighbour-{end}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        reading = aside.submit(ask, patient_threaded.port, f"/reads-socket?socket={path}&tag={tag}")
        connection, _ = server.accept()
        streaming = aside.submit(ask, patient_threaded.port, f"/trickle?file={gate}&tag={tag}-stream")
        worker = begun(threaded, tag)
        assert begun(threaded, f"{tag}-stream") == worker
        took, following = ended(threaded, end, f"{tag}-hangs", aside)
        seen(f"{end} with threads", [took])
        assert took < 2
        # A new process serves what comes from now on, while the old one still has neighbours to wait for.
        assert following != worker
        assert not reading.done()
        with connection:
            connection.sendall(b"read after all\n")
        gate.touch()
        assert (reading.result().status, reading.result().body) == (200, b"read after all\n")
        assert streaming.result().text == "one\ntwo\n"
    until(lambda: gone(worker), what="the end of the old process, though one handler there hangs on")
    assert [len(threaded.runs(name)) for name in (tag, f"{tag}-stream", f"{tag}-hangs")] == [1, 1, 1]


def ended(site, end, tag, aside):
    """Have a call end.

    Returns the seconds from its deadline, or its cancel, to the client's answer, and the process of the next
    request.
    """
    if end == "timeout":
        began = time.monotonic()
        assert ask(site.web.port, f"/swallows?tag={tag}").status == 504
        return time.monotonic() - began - TIMEOUT, pid(site)
    web = site.start_web(gateway="timeout=60, wait_for_response=False")
    try:
        urls = ask(web.port, f"/swallows?tag={tag}").json
        begun(site, tag)
        began = time.monotonic()
        assert ask(web.port, urls["status_url"], "DELETE").status == 202
        following = aside.submit(pid, site)
        assert ask(web.port, urls["result_url"]).status == 410
        return time.monotonic() - began, following.result()
    finally:
        web.stop()
