"""Handlers that hang, block, leak and kill their process: each call ends in time, the worker serves on."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from harness import ask, environment, until
from remains import alive

TIMEOUT, GRACE, LEASE = 0.5, 0.5, 2.0
#: Seconds after its deadline in which a call's outcome is there.
PROMISED = 5.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


COMMAND = (sys.executable, "-m", "wsgi_timeout.serving.cli")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        "faulty:app",
        pool=("--processes", "1", "--max-memory", "300"),
        wait_seconds=40,
        worker_wait=20,
        timeout=TIMEOUT,
        interrupt_grace=GRACE,
        lease_seconds=LEASE,
        max_attempts=3,
    )


@pytest.fixture(scope="module")
def patient(site):
    """A web process whose calls may run for long."""
    web = site.start_web(gateway="timeout=60")
    yield web
    web.stop()


HANGS = ["sleeps", "catches", "swallows", "blocks-signals", "computes", "matches"]


@pytest.mark.parametrize("how", HANGS)
def test_a_handler_that_hangs_is_ended(site, seen, how):
    """However a handler hangs, its call ends with 504 after its deadline, and the worker serves the next."""
    began = time.monotonic()
    answer = ask(site.web.port, f"/{how}?tag={how}")
    took = time.monotonic() - began
    assert (answer.status, "longer than" in answer.json["detail"]) == (504, True)
    assert took < TIMEOUT + PROMISED
    assert ask(site.web.port, "/fast").text == "fast \n"
    served = time.monotonic() - began
    seen(f"{how}: after its deadline", [took - TIMEOUT])
    seen(f"{how}: until the next call was served", [served - TIMEOUT])
    assert len(site.runs(how)) == 1


@pytest.mark.parametrize("seconds", [2 * LEASE, pytest.param(15.0, marks=pytest.mark.slow)])
def test_a_handler_that_holds_the_gil_is_no_dead_one(site, patient, seen, seconds):
    """A C call that keeps the GIL, longer than a lease lasts, is taken for no death: one run, its answer."""
    tag = f"gil{seconds:g}"
    began = time.monotonic()
    answer = ask(patient.port, f"/holds-gil?seconds={seconds}&tag={tag}")
    seen(f"{tag}: over its {seconds:g} s", [time.monotonic() - began - seconds])
    assert (answer.status, answer.text) == (200, f"held {tag}\n")
    assert len(site.runs(tag)) == 1


@pytest.mark.parametrize(
    ("how", "death"),
    [("dies", r"signal 9"), ("aborts", "signal 6"), ("exits", "exit code 0")],
)
def test_a_call_that_kills_its_workers_is_given_up(site, patient, seen, how, death):
    """A GET that ends its process on each run is given up after `max_attempts`; the pool serves on."""
    began = time.monotonic()
    answer = ask(patient.port, f"/{how}?tag={how}")
    seen(f"{how}: three runs", [time.monotonic() - began])
    assert (answer.status, death in answer.text) == (502, False)
    patient.wait_for(f"reference {answer.json['reference']}: .*its worker died while it ran .{death}")
    assert len({run.split()[1] for run in site.runs(how)}) == len(site.runs(how)) == 3
    assert ask(patient.port, "/fast").status == 200


@pytest.mark.parametrize("how", ["aborts", "exits"])
def test_a_post_that_kills_its_worker_runs_once(site, patient, seen, how):
    """A POST whose handler ends its process gets 502 and is not run again."""
    began = time.monotonic()
    assert ask(patient.port, f"/{how}?tag=post-{how}", "POST").status == 502
    seen("the 502", [time.monotonic() - began])
    assert len(site.runs(f"post-{how}")) == 1
    assert ask(patient.port, "/fast").status == 200


def test_a_memory_error_is_an_error_as_any_other(site, patient, seen):
    """A handler that raises `MemoryError` is answered with 500; the same process serves the next call."""
    pid = ask(patient.port, "/pid").json["pid"]
    began = time.monotonic()
    assert ask(patient.port, "/runs-out").status == 500
    seen("the 500", [time.monotonic() - began])
    assert ask(patient.port, "/pid").json["pid"] == pid


def test_a_process_that_grew_too_large_is_replaced(site, patient, gate, seen):
    """A process over `max_memory` ends what it runs, which is delivered; the next call meets a new one."""
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(ask, patient.port, f"/leaks?mib=400&tag=leaks&file={gate}")
        large = psutil.Process(int(until(lambda: site.runs("leaks"))[0].split()[1]))
        began = time.monotonic()
        other = until(lambda: ask(patient.port, "/pid").json["pid"], 20, "an answer beside it")
        seen("until a new process served", [time.monotonic() - began])
        gate.touch()
        assert waiting.result().json == {"pid": large.pid}
    assert other != large.pid
    until(lambda: not alive(large), what="its end")
    assert ask(patient.port, "/pid").json["pid"] != large.pid
    assert len(site.runs("leaks")) == 1


def test_a_bound_below_the_apps_own_size_stops_no_call(deploy):
    """A process larger than `--max-memory` from the start answers a call, and is replaced then."""
    site = deploy(pool=("--processes", "1", "--max-memory", "1"), worker_wait=20, wait_seconds=20)
    first = ask(site.web.port, "/pid").json["pid"]
    until(lambda: not psutil.pid_exists(first), what="its end")
    assert ask(site.web.port, "/pid").json["pid"] != first


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sleeps", "swallows", "blocks-signals", "computes"])
def test_hangs_with_productions_grace(deploy, seen, how):
    """With the usual 10 s of grace too the client is told within 5 s; the worker is free when killed."""
    site = deploy("faulty:app", pool=("--processes", "1"), wait_seconds=40, timeout=1, interrupt_grace=10)
    assert ask(site.web.port, "/fast").status == 200  # gunicorn has booted
    began = time.monotonic()
    assert ask(site.web.port, f"/{how}").status == 504
    took = time.monotonic() - began - 1
    assert took < PROMISED
    seen(f"{how}: after its deadline", [took])
    assert ask(site.web.port, "/fast").status == 200
    seen(f"{how}: until the next call was served", [time.monotonic() - began - 1])


def test_what_was_given_up_is_listed(site, patient):
    """`wsgi-timeout calls --failed` shows a call that kept killing its workers: its runs, and why."""
    assert ask(patient.port, "/dies?secret=1").status == 502
    command = [
        sys.executable,
        "-m",
        "wsgi_timeout.serving.cli",
        "calls",
        "--failed",
        "--json",
        "--limit",
        "1",
    ]
    env = {**environment(), "REDIS_URL": site.redis.url}
    found = json.loads(subprocess.run(command, env=env, capture_output=True, check=True, timeout=30).stdout)
    assert (found["name"], found["call"], found["attempts"]) == (site.name, "GET /dies", 3)
    assert (found["outcome"], found["detail"]) == ("lost", "its worker died while it ran (signal 9)")
