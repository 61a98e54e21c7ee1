"""What must not meet: web calls and functions, two targets on one Redis, two versions of the wire format."""

import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from harness import APPS, FAST, Gunicorn, Pool, Process, ask, environment, follow, function_workers, until

import wsgi_timeout
import wsgi_timeout_jobs
from wsgi_timeout.store.messages import WIRE_VERSION

OTHER_TARGET = (
    r"queue wt:{name} is served by worker \S+ with target 'basic:app', here it is 'own_server:app': "
    r"give one of them another --name"
)
OTHER_VERSION = (
    r"worker \S+ of queue wt:{name} speaks wire version {theirs}, this process {ours}: "
    r"run the same version of wsgi-timeout everywhere"
)


pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
def aside():
    """Threads for requests that wait."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def start():
    """Return a function that keeps a process to be stopped with the test."""
    started = []

    def start(process):
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        process.stop()


def pids(pool):
    return {process.pid for process in pool.workers()}


def test_the_web_process_names_its_queue_at_start(site):
    """As workers do: both logs tell why a request is not taken."""
    site.web.wait_for(f"requests to basic:app run as calls of the queue wt:{site.name}\n")


# -- web calls and functions


@pytest.fixture(scope="module")
def stub(deploy):
    options = ("--processes", "1", "--function-processes", "2")
    site = deploy("deploy:stub", pool=options, secret="one for all", wait_seconds=20)
    until(lambda: function_workers(site.redis, site.name) == 2, what="the processes for functions")
    return site


def spawned(stub, gate):
    return ask(stub.web.port, f"/accept?file={gate}", "POST").json["call_id"]


def result(stub, call_id):
    return ask(stub.web.port, f"/result/{call_id}")


def test_functions_that_run_delay_no_poller(stub, gate):
    """While all processes for functions are busy, and calls wait for them, web calls are answered."""
    calls = [spawned(stub, gate) for _ in range(5)]
    queue = f"rq:queue:wt:{stub.name}:functions"
    until(lambda: stub.redis.client.llen(queue) == 3, what="two functions that run")
    assert [result(stub, call).status for call in calls] == [202] * 5
    web = ask(stub.web.port, "/slow").json["pid"]
    gate.touch()
    until(lambda: all(result(stub, call).status == 200 for call in calls), what="all results")
    functions = {result(stub, call).json["pid"] for call in calls}
    assert web not in functions
    assert functions | {web} <= pids(stub.pool)
    assert len(functions) == 2


def test_web_calls_that_run_delay_no_function(stub, aside, gate):
    """While all processes for web calls are busy, functions run."""
    call = spawned(stub, gate)
    waiting = aside.submit(follow, stub.web.port, f"/slow?file={gate}2")
    until(lambda: stub.redis.client.zcard(f"rq:wip:wt:{stub.name}") == 1, what="the web call")
    gate.touch()
    until(lambda: stub.redis.client.hget(f"wt:call:{call}", "state") == b"ended", what="the function's end")
    assert not waiting.done()
    Path(f"{gate}2").touch()
    assert waiting.result()[-1].status == 200


# -- two targets


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("basic:app", pool=("--processes", "2"), wait_seconds=20)


def test_two_targets_on_one_redis_do_not_meet(site, stub, redis_server, start, aside):
    """Each target's requests run in its own workers only, and a result URL of one is unknown to the other."""
    env = environment(**{**FAST, "wait_seconds": 20, "worker_wait": 3})
    other_pool = start(Pool("own_server:app", None, redis_server.url, "--processes", "2", env=env, cwd=APPS))
    app = "wsgi_timeout:gateway('own_server:app', routes={'POST /slow': {'wait_for_response': False}})"
    other = start(Gunicorn(app, redis_server.url, env=env))
    mine = [aside.submit(ask, site.web.port, "/pid") for _ in range(20)]
    theirs = [aside.submit(ask, other.port, "/slow") for _ in range(20)]
    assert {answer.result().json["pid"] for answer in mine} <= pids(site.pool)
    assert {answer.result().json["pid"] for answer in theirs} <= pids(other_pool)
    location = ask(other.port, "/slow?seconds=1", "POST").location
    assert ask(site.web.port, location).status == 404
    assert follow(other.port, location)[-1].status == 200
    # Nor does one serve the other when it is alone.
    other_pool.stop()
    answer = ask(other.port, "/slow")
    assert (answer.status, "no live worker serves 'own_server'" in answer.text) == (503, True)
    assert ask(site.web.port, "/pid").status == 200


def test_a_worker_of_another_target_is_refused(site, redis_server, start):
    """Workers of another target under the same name say what is wrong, and end; the first ones go on."""
    pool = start(Pool("own_server:app", site.name, redis_server.url, env=site.env, cwd=APPS, wait=False))
    assert pool.popen.wait(20) == 1
    assert re.search(OTHER_TARGET.format(name=site.name) + "; this worker is refused", pool.output)
    assert "Traceback" not in pool.output
    assert ask(site.web.port, "/pid").json["pid"] in pids(site.pool)


def test_a_web_process_of_another_target_is_refused(site, redis_server, start, seen):
    """A web process of another target under the same name answers 503, and both it and its log say why."""
    web = start(Gunicorn(f"wsgi_timeout:gateway('own_server:app', name={site.name!r})", redis_server.url))
    answer = ask(web.port, "/slow")
    assert answer.status == 503
    told = OTHER_TARGET.format(name=site.name)
    assert "own_server" not in answer.json["detail"]
    web.wait_for(f"reference {answer.json['reference']}: 503 to GET .*: {told}")
    web.wait_for("requests are refused: " + OTHER_TARGET.format(name=site.name))
    took = []
    for _ in range(5):
        began = time.monotonic()
        assert ask(web.port, "/slow").status == 503
        took.append(time.monotonic() - began)
    seen("the 503", took)
    assert web.output.count("requests are refused") == 1


def test_a_stock_worker_of_another_target_puts_calls_back(site, redis_server, start, aside, gate):
    """A stock worker of another target says what is wrong, and leaves the call to those of its own."""
    env = {**site.env, "WSGI_TIMEOUT_TARGET": "own_server:app"}
    words = ("worker", "--url", redis_server.url, "--serializer", "json", f"wt:{site.name}")
    busy = [aside.submit(follow, site.web.port, f"/gate?file={gate}&tag=busy") for _ in range(2)]
    until(lambda: len(site.runs("busy")) == 2, what="two busy workers")
    call = aside.submit(follow, site.web.port, "/fast?tag=strange")
    worker = start(Process([Path(sys.executable).with_name("rq"), *words], env=env, cwd=APPS))
    worker.wait_for("is put back: " + OTHER_TARGET.format(name=site.name))
    worker.stop()
    gate.touch()
    assert call.result()[-1].text == "fast strange\n"
    assert {one.result()[-1].status for one in busy} == {200}
    assert len(site.runs("strange")) == 1


def test_the_same_target_in_other_words_is_accepted(site, redis_server, start):
    """A file and its module are one target."""
    start(Pool("basic.py:app", site.name, redis_server.url, "--processes", "1", env=site.env, cwd=APPS))
    assert ask(site.web.port, "/pid").status == 200


# -- two versions


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """A folder with a copy of our packages that speaks the next version of the wire format."""
    folder = tmp_path_factory.mktemp("newer")
    for package in (wsgi_timeout, wsgi_timeout_jobs):
        source = Path(package.__file__).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    messages = folder / "wsgi_timeout" / "store" / "messages.py"
    text = messages.read_text()
    changed = text.replace(f"WIRE_VERSION = {WIRE_VERSION}\n", f"WIRE_VERSION = {WIRE_VERSION + 1}\n")
    assert changed != text
    messages.write_text(changed)
    return {"PYTHONPATH": f"{folder}:{APPS}"}


def said(site, theirs, ours):
    return OTHER_VERSION.format(name=site.name, theirs=WIRE_VERSION + theirs, ours=WIRE_VERSION + ours)


def test_workers_of_two_versions_serve_at_the_same_time(site, redis_server, start, newer):
    """In a deploy a newer worker takes what newer web processes send, and leaves the rest."""
    env = {**site.env, **newer}
    pool = start(Pool(site.target, site.name, redis_server.url, "--processes", "1", env=env, cwd=APPS))
    app = f"wsgi_timeout:gateway('basic:app', name={site.name!r})"
    web = start(Gunicorn(app, redis_server.url, env=env, cwd=APPS))
    for _ in range(5):
        assert ask(site.web.port, "/pid").json["pid"] in pids(site.pool)
        assert ask(web.port, "/pid").json["pid"] in pids(pool)


def test_a_newer_web_process_is_refused(site, redis_server, start, newer, seen):
    """A web process of another version than the workers answers 503, and says why."""
    app = f"wsgi_timeout:gateway('basic:app', name={site.name!r})"
    web = start(Gunicorn(app, redis_server.url, env={**site.env, **newer}, cwd=APPS))
    began = time.monotonic()
    answer = ask(web.port, "/fast")
    seen("the 503, from its start", [time.monotonic() - began])
    assert answer.status == 503
    web.wait_for(f"reference {answer.json['reference']}: .*{said(site, 0, 1)}")


@pytest.mark.slow
def test_an_upgrade(deploy, start, newer):
    """After old workers have gone newer ones serve; an old web process refuses, and a new one answers.

    A call that still waits in the queue, and a result that is not read yet, wait for who can read them.
    """
    site = deploy("basic:app", pool=("--processes", "1"), wait_seconds=20)
    later = site.start_web(gateway="wait_for_response=False")
    old = start(later)
    blocking = ask(old.port, "/slow?seconds=1.5").json
    left = ask(old.port, "/fast").json
    site.pool.popen.send_signal(15)
    site.pool.popen.wait(20)
    assert ask(old.port, blocking["result_url"]).status == 200
    env = {**site.env, **newer}
    pool = start(Pool(site.target, site.name, site.redis.url, "--processes", "1", env=env, cwd=APPS))
    (worker,) = pids(pool)
    refused = until(lambda: [a for a in [ask(old.port, "/fast")] if a.status == 503], what="the refusal")
    assert refused[0].status == 503
    old.wait_for(f"reference {refused[0].json['reference']}: .*{said(site, 1, 0)}")
    app = f"wsgi_timeout:gateway('basic:app', name={site.name!r})"
    new = start(Gunicorn(app, site.redis.url, env=env, cwd=APPS))
    assert ask(new.port, "/pid").json["pid"] == worker
    assert psutil.pid_exists(worker)
    # Back again: the old one's call is run, and nobody reads the other's response as its own.
    start(Pool(site.target, site.name, site.redis.url, "--processes", "1", env=site.env, cwd=APPS))
    assert follow(old.port, left["result_url"])[-1].status == 200
