"""Functions that run elsewhere: their handles, results, failures, retries and queues."""

import asyncio
import itertools
import os
import re
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from harness import APPS, Pool, ask, function_workers, joined, until

from wsgi_timeout import FunctionCall, gather
from wsgi_timeout.errors import (
    CallCancelled,
    CallTimedOut,
    ConfigurationError,
    NoWorker,
    OutputExpiredError,
    PayloadRefused,
    QueueFull,
    RedisUnavailable,
    RemoteError,
    ResultNotReady,
    WorkerLost,
)
from wsgi_timeout.functions.client import client

SECRET = "of these tests"
#: Processes for each queue of functions.
PROCESSES = 2


@pytest.fixture(scope="module")
def site(deploy):
    options = ("--processes", "1", "--function-processes", str(PROCESSES))
    site = deploy("spawned:stub", pool=options, secret=SECRET, worker_wait=10)
    until(lambda: function_workers(site.redis, site.name) == PROCESSES, 20, "the processes for functions")
    return site


@pytest.fixture(scope="module", autouse=True)
def here(site):
    """This process spawns and gets calls, too."""
    with joined(site.redis.url, site.name, site.env):
        yield


@pytest.fixture(scope="module")
def app(here):
    import spawned

    return spawned


@pytest.fixture
def busy(app, site, gate):
    """All processes for functions have something to do until the test ends."""
    calls = [app.held.spawn(str(gate), f"busy-{gate.parent.name}") for _ in range(PROCESSES)]
    until(lambda: len(site.runs(f"busy-{gate.parent.name}")) == PROCESSES, what="all processes at work")
    yield calls
    gate.touch()
    gather(*calls)


@pytest.fixture(scope="module")
def pools(site):
    """One pool with one process for functions, one with one process of two threads, and no pool."""
    names = {kind: f"{site.name}-{kind}" for kind in ("single", "threads", "none")}
    kinds = {"single": (), "threads": ("--threads", "2")}
    one = ("--processes", "1", "--function-processes", "1")
    pools = [
        Pool("spawned:stub", names[kind], site.redis.url, *one, *more, env=site.env, cwd=APPS, wait=False)
        for kind, more in kinds.items()
    ]
    for pool in pools:
        pool.wait_until_ready()
    yield names
    for pool in pools:
        pool.stop()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as executor:
        yield executor


def python(site, code, *arguments, **env):
    """Run code in a process of its own, which has only Redis and the secret; return what it printed."""
    own = {**site.env, "REDIS_URL": site.redis.url, "PYTHONPATH": "", **env}
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=30, check=False)


class TestResults:
    def test_a_spawned_call_returns_its_result(self, app):
        """What a function returns in a worker is what `get` returns here."""
        assert app.add.spawn(1, b=2).get() == 3

    def test_an_id_is_enough_to_find_a_call(self, app):
        """A call's handle can be made from its id, and gets the same result as often as wanted."""
        call = app.add.spawn(20, 22)
        assert re.fullmatch(r"fc-[\w-]{22}", call.object_id)
        again = FunctionCall.from_id(call.object_id)
        assert [again.get(), again.get(timeout=0), call.get(), call.get(5)] == [42] * 4
        assert again.object_id == call.object_id
        assert repr(again) == f"FunctionCall({call.object_id!r})"

    def test_remote_waits_and_local_runs_here(self, app, site):
        """`remote` runs the function in a worker, `local` and a plain call run it in this process."""
        workers = {process.pid for process in site.pool.workers()}
        assert app.pid.remote() in workers
        assert app.pid.local() == app.pid() == os.getpid()

    def test_any_python_object_may_come_and_go(self, app):
        """Arguments and results are pickled: objects of the program's classes, and even a lambda."""
        point = app.point.remote(3)
        assert (type(point), point.x, point.y) == (app.Point, 3, 4)
        assert app.reduce.remote(lambda values: sum(values) * 2, range(5)) == 20

    def test_a_function_keeps_its_name_and_docstring(self, app):
        """A decorated function looks like the function that it wraps."""
        assert (app.add.__name__, app.add.__doc__) == ("add", "Add two numbers.")

    def test_a_parameter_may_be_called_self(self, app):
        """A function's parameters may be called as ours: none of theirs is taken for one of ours."""
        options = {"self": 1, "args": 2, "call_id": 3, "timeout": 4}
        assert app.named.remote("first", **options) == ("first", options)
        assert app.named.local("first", **options) == app.named("first", **options) == ("first", options)

    def test_a_coroutine_function_is_awaited(self, app):
        """An `async def` runs in a worker as any other, and knows its call."""
        call = app.awaited.spawn(0.01)
        assert call.get() == call.object_id

    def test_gather_returns_results_in_order(self, app, gate):
        """`gather` waits for several calls, and returns their results in the order of the calls."""
        slow, *fast = app.held.spawn(str(gate), "slow"), app.add.spawn(1), app.add.spawn(2)
        assert gather(*fast) == [1, 2]
        gate.touch()
        assert gather(slow, *fast) == ["slow", 1, 2]
        assert gather() == []

    def test_gather_raises_the_first_failure(self, app):
        """`gather` raises the first exception in the order of the calls."""
        calls = [
            app.add.spawn(1),
            app.raises.spawn(KeyError("first")),
            app.raises.spawn(ValueError("second")),
        ]
        with pytest.raises(KeyError, match="first"):
            gather(*calls)

    def test_a_get_in_async_code_leaves_the_loop_free(self, app, gate):
        """`get.aio` is awaited while the event loop does other things."""
        call = app.held.spawn(str(gate), "aio")

        async def main():
            waiting = asyncio.ensure_future(call.get.aio(timeout=20))
            with pytest.raises(TimeoutError):
                await call.get.aio(timeout=0)
            gate.touch()
            return await waiting

        assert asyncio.run(main()) == "aio"

    def test_a_get_in_async_code_can_be_given_up(self, app, gate):
        """One who is cancelled while it awaits a result keeps no loop from ending."""
        call = app.held.spawn(str(gate), "given-up")

        async def main():
            await asyncio.wait_for(call.get.aio(), 0.2)

        began = time.monotonic()
        with pytest.raises(TimeoutError):
            asyncio.run(main())
        assert time.monotonic() - began < 2
        with pytest.raises(ResultNotReady):
            asyncio.run(call.get.aio(timeout=2.1))
        gate.touch()
        assert asyncio.run(call.get.aio()) == "given-up"

    def test_many_may_await(self, app, gate):
        """Many who await results at once leave asyncio its own threads."""
        call = app.held.spawn(str(gate), "awaited-by-many")

        async def main():
            waiting = [asyncio.ensure_future(call.get.aio()) for _ in range(60)]
            await asyncio.wait_for(asyncio.to_thread(gate.touch), 10)
            return await asyncio.gather(*waiting)

        assert asyncio.run(main()) == ["awaited-by-many"] * 60

    def test_a_handle_can_be_sent(self, app):
        """A call's handle may be an argument or a result, as any object."""
        inner = app.add.spawn(1, 1)
        assert app.add.remote([inner], [])[0].get() == 2

    def test_a_web_app_spawns_and_gets(self, site):
        """A web function of the stub spawns a function in one request, and gets its result in another."""
        call_id = ask(site.web.port, "/spawn", "POST").json["id"]
        assert ask(site.web.port, f"/get/{call_id}").json == {"result": 3}
        assert FunctionCall.from_id(call_id).get() == 3

    def test_another_process_gets_by_id(self, app, site):
        """Any process with `REDIS_URL` and the secret gets a result by its id, without the program."""
        call = app.add.spawn(3, 4)
        code = "import sys, wsgi_timeout as w; print(w.FunctionCall.from_id(sys.argv[1]).get())"
        assert python(site, code, call.object_id).stdout == "7\n"

    def test_another_process_spawns(self, site):
        """Any process that can import the stub spawns, under the name of its module or a given one."""
        code = "import spawned; print(spawned.stub.name, spawned.add.spawn(5, 6).object_id)"
        name, call_id = python(site, code, PYTHONPATH=str(APPS), WSGI_TIMEOUT_NAME=site.name).stdout.split()
        assert (name, FunctionCall.from_id(call_id).get()) == (site.name, 11)

    def test_the_program_itself_is_a_script(self, site):
        """A stub's own file, run as a script, spawns with its own classes, under the file's name."""
        pool = Pool("program:stub", None, site.redis.url, "--function-processes", "1", env=site.env, cwd=APPS)
        try:
            command = [sys.executable, "-W", "error", APPS / "program.py"]
            env = {**site.env, "REDIS_URL": site.redis.url, "PYTHONPATH": ""}
            ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=40, check=False)
            assert (ran.stdout, ran.stderr) == ("program 42\n", "")
        finally:
            pool.stop()

    def test_a_handle_needs_no_redis(self):
        """`from_id` and `object_id` do no I/O: they work where no Redis is."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("REDIS_URL", "unix:///nowhere/at/all")
            assert FunctionCall.from_id("fc-any").object_id == "fc-any"
            patch.delenv("REDIS_URL")
            assert FunctionCall.from_id("fc-any").object_id == "fc-any"
            with pytest.raises(ConfigurationError, match="REDIS_URL is not set"):
                FunctionCall.from_id("fc-any").get(timeout=0)

    def test_a_redis_that_is_away_refuses_a_spawn(self, app):
        """Where Redis is not reached a spawn raises an error of ours, since nothing was accepted."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("REDIS_URL", "unix:///nowhere/at/all")
            patch.setenv("WSGI_TIMEOUT_WORKER_WAIT", "0.3")
            began = time.monotonic()
            with pytest.raises(RedisUnavailable, match="/nowhere/at/all"):
                app.add.spawn(1)
            assert time.monotonic() - began > 0.3
            with pytest.raises(RedisUnavailable, match="/nowhere/at/all"):
                app.add.remote(1)


class TestWhileItRuns:
    def test_get_with_a_timeout_raises_timeout_error(self, app, gate):
        """While a call runs `get(timeout=...)` raises a builtin `TimeoutError`, at once or after the time."""
        call = app.held.spawn(str(gate), "running")
        for timeout in (0, 0.2):
            began = time.monotonic()
            with pytest.raises(TimeoutError, match=rf"{call.object_id} has not ended yet") as raised:
                call.get(timeout=timeout)
            assert isinstance(raised.value, ResultNotReady)
            assert timeout <= time.monotonic() - began < timeout + 5
        gate.touch()
        assert call.get(timeout=20) == "running"

    def test_one_who_waits_is_woken_by_the_end(self, app, threads, gate):
        """Several who wait for one call, for ever or for a while, all get its result when it ends."""
        call = app.held.spawn(str(gate), "woken")
        waiting = [threads.submit(call.get, timeout) for timeout in (None, 30, None)]
        until(
            lambda: len(client().redis.hget(f"wt:call:{call.object_id}", "inboxes") or b""), what="a waiter"
        )
        gate.touch()
        assert [future.result(20) for future in waiting] == ["woken"] * 3

    def test_status_tells_progress_and_times(self, app, gate):
        """`status` tells the state, how far the function is, and when it began and ended, in UTC."""
        call = app.held.spawn(str(gate), "status")
        running = until(lambda: (status := call.status())["progress"] and status, what="a report")
        assert (running["state"], running["outcome"], running["attempts"]) == ("running", None, 1)
        assert running["progress"] == {"done": 1, "total": 2, "message": "half of it"}
        assert (running["ended"], running["due"]) == (None, None)
        gate.touch()
        call.get()
        ended = call.status()
        assert (ended["state"], ended["outcome"], ended["attempts"]) == ("ended", "done", 1)
        assert ended["created"] <= ended["started"] <= ended["ended"]
        assert abs(datetime.now(UTC) - ended["ended"]) < timedelta(minutes=1)

    @pytest.mark.usefixtures("busy")
    def test_status_of_a_call_that_waits(self, app):
        """A call for which no process is free is queued, and has not begun."""
        call = app.add.spawn(1)
        status = call.status()
        assert (status["state"], status["attempts"], status["started"]) == ("queued", 0, None)
        call.cancel()

    def test_a_running_call_is_cancelled(self, app, site, gate):
        """`cancel` ends a running function, whose `finally` runs; it returns False for an ended one."""
        tag = f"cancel-{gate.parent.name}"
        call = app.held.spawn(str(gate), tag)
        until(lambda: site.runs(tag), what="the function at work")
        assert call.cancel() is True
        with pytest.raises(CallCancelled, match="cancelled by its caller"):
            call.get()
        until(lambda: site.runs(f"{tag}-finally"), what="its finally")
        assert call.cancel() is False
        assert call.status()["outcome"] == "cancelled"

    @pytest.mark.usefixtures("busy")
    def test_a_queued_call_is_cancelled(self, app, site, gate):
        """A call that is cancelled before it began never runs."""
        tag = f"never-{gate.parent.name}"
        call, after = app.held.spawn("/", tag), app.add.spawn(1)
        assert call.cancel() is True
        gate.touch()
        assert after.get() == 1
        with pytest.raises(CallCancelled):
            call.get()
        assert site.runs(tag) == []

    @pytest.mark.usefixtures("busy")
    def test_pollers_are_answered_while_functions_run(self, site):
        """With all processes for functions at work, a web function answers as ever."""
        call_id = ask(site.web.port, "/spawn", "POST").json["id"]
        answer = ask(site.web.port, f"/status/{call_id}")
        assert (answer.status, answer.json) == (200, {"state": "queued"})
        FunctionCall.from_id(call_id).cancel()

    @pytest.mark.usefixtures("busy")
    def test_a_call_has_no_result_url(self, app, site):
        """A function call's id is no way to its result over HTTP: it is as unknown as any other."""
        call = app.add.spawn(1)
        for token in ("", "x" * 32):
            answer = ask(
                site.web.port, f"/add?__wsgi_timeout_call={call.object_id}.{token}&__wsgi_timeout_hop=1"
            )
            assert answer.status == 404
        call.cancel()


class TestUnknown:
    def test_an_unknown_call_says_so(self):
        """An id that nobody gave out is an error that names it, however it is asked for."""
        unknown = FunctionCall.from_id("fc-nobody-knows-this-one")
        for ask_it in (unknown.get, lambda: unknown.get(timeout=0), unknown.cancel, unknown.status):
            with pytest.raises(OutputExpiredError, match="no call 'fc-nobody-knows-this-one'") as raised:
                ask_it()
            assert not isinstance(raised.value, TimeoutError)

    def test_a_result_expires(self, app):
        """After `function_result_ttl` a call is as unknown as one that never was."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WSGI_TIMEOUT_FUNCTION_RESULT_TTL", "1")
            call = app.add.spawn(1, 2)
            large = app.blob.spawn(100_000)
        assert (call.get(), len(large.get())) == (3, 100_000)

        def expired():
            try:
                call.get(timeout=0), large.get(timeout=0)
            except OutputExpiredError:
                return True

        until(expired, what="the result's end")

    def test_who_waits_for_a_call_that_vanishes_is_told(self, app, threads, gate):
        """One who waits for ever is told when the call is gone from Redis."""
        call = app.held.spawn(str(gate), "vanishing")
        waiting = threads.submit(call.get)
        until(lambda: client().redis.hget(f"wt:call:{call.object_id}", "inboxes"), what="a waiter")
        client().redis.delete(f"wt:call:{call.object_id}")
        with pytest.raises(OutputExpiredError):
            waiting.result(20)


class TestFailures:
    def test_the_functions_own_exception_is_raised(self, app):
        """An exception of a worker is raised here as itself, with its attributes and its remote traceback."""
        with pytest.raises(app.OrderError) as raised:
            app.raises.remote(app.OrderError(7, reason="no stock"))
        assert (raised.value.number, raised.value.reason) == (7, "no stock")
        shown = "".join(traceback.format_exception(raised.value))
        assert "In the worker:" in shown
        assert 'spawned.py", line' in shown
        assert "    raise error" in shown

    def test_it_is_raised_again_and_again(self, app):
        """Each `get` of a failed call raises anew."""
        call = app.raises.spawn(KeyError("again"))
        for _ in range(2):
            with pytest.raises(KeyError, match="again") as raised:
                call.get()
            assert len(raised.value.__notes__) == 1
        assert call.status()["outcome"] == "raised"

    def test_the_remote_traceback_shows_causes(self, app):
        """What an exception was raised from stands in its remote traceback."""
        with pytest.raises(ValueError, match="the effect") as raised:
            app.raises_from.remote()
        assert re.search(r"KeyError: 'the cause'\n.*direct cause", raised.value.__notes__[0], re.DOTALL)

    @pytest.mark.parametrize("error", [TimeoutError("too late"), ResultNotReady("inner")])
    def test_a_timeout_error_of_the_function_is_a_failure(self, app, error):
        """A function that raises a `TimeoutError` has failed: nobody takes it for one that still runs."""
        with pytest.raises(RemoteError, match=str(error)) as raised:
            app.raises.remote(error)
        assert not isinstance(raised.value, TimeoutError)
        assert type(raised.value.__cause__) is type(error)

    def test_the_functions_own_timeout_is_no_timeout_error(self, app, site, gate):
        """A function that ran longer than its `timeout` is ended, which is no `TimeoutError` either."""
        tag = f"endless-{gate.parent.name}"
        call = app.endless.spawn(str(gate), tag)
        with pytest.raises(CallTimedOut, match="longer than its timeout, 1 s") as raised:
            call.get()
        assert not isinstance(raised.value, TimeoutError)
        until(lambda: site.runs(f"{tag}-finally"), what="its finally")
        assert call.status()["outcome"] == "timeout"

    @pytest.mark.parametrize(
        "error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("x"), GeneratorExit()], ids=repr
    )
    def test_what_would_end_a_process_ends_the_call(self, app, site, error):
        """A `BaseException` of a function fails its call, and ends neither the worker nor who asks."""
        before = {process.pid for process in site.pool.workers()}
        with pytest.raises(RemoteError, match=f"the function raised {type(error).__name__}") as raised:
            app.raises.remote(error)
        assert type(raised.value.__cause__) is type(error)
        assert {process.pid for process in site.pool.workers()} == before

    def test_an_exception_that_cannot_be_rebuilt_comes_by_name(self, app):
        """An exception whose pickle cannot be read comes with its name, its text and its traceback."""
        with pytest.raises(RemoteError, match=r"spawned\.StubbornError: one and two") as raised:
            app.raises_stubborn.remote()
        assert "in raises_stubborn" in raised.value.__notes__[0]

    def test_an_exception_that_cannot_be_told_comes_by_name(self, app, site):
        """An exception with neither pickle nor text fails its call, and not its worker."""
        before = {process.pid for process in site.pool.workers()}
        with pytest.raises(RemoteError, match=r"spawned\.UnspeakableError") as raised:
            app.raises_unspeakable.remote()
        assert "in raises_unspeakable" in raised.value.__notes__[0]
        assert {process.pid for process in site.pool.workers()} == before

    def test_a_long_exception_is_shortened(self, app, monkeypatch):
        """Of an exception over `max_payload` the name and both ends of its text come."""
        monkeypatch.setenv("WSGI_TIMEOUT_MAX_PAYLOAD", "1000000")
        shortened = r"(?s)ValueError: xxx.*\[\.\.\. \d+ characters left out"
        with pytest.raises(RemoteError, match=shortened) as raised:
            app.raises_long.remote(2_000_000)
        assert "in raises_long" in raised.value.__notes__[0]
        assert max(len(str(raised.value)), len(raised.value.__notes__[0])) < 70_000

    @pytest.mark.parametrize("what", ["app.point.spawn(1)", "app.raises.spawn(app.OrderError(1, reason=''))"])
    def test_what_another_process_cannot_import_comes_by_name(self, app, site, what):
        """A process without the program's classes is told what it cannot read."""
        call = eval(what, {"app": app})
        code = "import sys, wsgi_timeout as w; w.FunctionCall.from_id(sys.argv[1]).get()"
        complaint = python(site, code, call.object_id).stderr
        assert "RemoteError: the result of call" in complaint
        assert "cannot be read here: ModuleNotFoundError(\"No module named 'spawned'\")" in complaint

    def test_another_secret_reads_nothing(self, app, site):
        """A process with another secret is refused, and told what to set."""
        call = app.add.spawn(1)
        call.get()
        code = "import sys, wsgi_timeout as w; w.FunctionCall.from_id(sys.argv[1]).get()"
        complaint = python(site, code, call.object_id, WSGI_TIMEOUT_SECRET="another").stderr
        assert PayloadRefused.__name__ in complaint
        assert "set the same secret in every process" in complaint

    def test_a_result_that_cannot_be_pickled_is_an_error(self, app):
        """A result that cannot be sent is a `TypeError` that says so."""
        with pytest.raises(TypeError, match=r"the result of call fc-\S+ cannot be pickled: .*generator"):
            app.generator.remote()

    def test_an_argument_that_cannot_be_pickled_is_an_error_at_once(self, app, threads):
        """An argument that cannot be sent is a `TypeError`, and nothing is queued."""
        queue = f"rq:queue:wt:{app.stub.name}:functions"
        with pytest.raises(TypeError, match=r"the arguments of call fc-\S+ cannot be pickled: .*lock"):
            app.add.spawn(threads._shutdown_lock)
        assert client().redis.llen(queue) == 0

    def test_a_killed_worker_is_told_of(self, app, site):
        """A call whose worker was killed is lost, and not run again; the next one finds a new worker."""
        with pytest.raises(WorkerLost, match="its worker died while it ran"):
            app.dies.remote()
        assert app.add.remote(1) == 1
        until(lambda: function_workers(site.redis, site.name) == PROCESSES, what="the new worker")


class TestRetries:
    def test_a_failed_function_runs_again_after_doubling_pauses(self, app, site):
        """`retries=2` runs a function up to three times, with pauses that double, without RQ's scheduler."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WSGI_TIMEOUT_RETRY_BACKOFF", "0.2")
            call = app.flaky.spawn("flaky", 2)
        assert call.get() == 3
        moments = [float(line.split()[2]) for line in site.runs("flaky")]
        first, second = (after - before for before, after in itertools.pairwise(moments))
        assert first >= 0.2
        assert second >= 0.4
        assert call.status()["attempts"] == 3
        assert client().redis.keys("rq:scheduled:*") == client().redis.keys("rq:scheduler*") == []

    def test_a_pause_is_seen_and_can_be_cancelled(self, app):
        """Between two runs a call is delayed: its status says until when, and it can be cancelled."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WSGI_TIMEOUT_RETRY_BACKOFF", "50")
            call = app.flaky.spawn("pausing", 2)
        status = until(lambda: (status := call.status())["state"] == "delayed" and status, what="the pause")
        assert status["attempts"] == 1
        assert timedelta(seconds=49) < status["due"] - status["started"] < timedelta(seconds=60)
        with pytest.raises(TimeoutError):
            call.get(timeout=0)
        assert call.cancel() is True
        with pytest.raises(CallCancelled):
            call.get()

    def test_a_function_that_goes_on_failing_has_failed(self, app, site):
        """After its last retry a function's exception is raised."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WSGI_TIMEOUT_RETRY_BACKOFF", "0")
            call = app.flaky.spawn("hopeless", 99)
        with pytest.raises(ValueError, match="run 3"):
            call.get()
        assert len(site.runs("hopeless")) == 3


class TestQueues:
    @pytest.mark.usefixtures("busy")
    def test_a_queue_has_processes_of_its_own(self, app, site, tmp_path):
        """A function with `queue=` runs in processes of its own, in an RQ queue of its own."""
        file = tmp_path / "file"
        call, waiting = app.report.spawn(str(file)), app.pid.spawn()
        until(lambda: call.status()["state"] == "running", what="the report")
        assert client().redis.hget(f"rq:job:{call.object_id}", "origin") == f"wt:{site.name}:reports".encode()
        file.touch()
        reporter = call.get()
        assert waiting.status()["state"] == "queued"
        waiting.cancel()
        assert reporter in {process.pid for process in site.pool.workers()}
        until(
            lambda: function_workers(site.redis, site.name, "reports") == PROCESSES,
            what="the processes of the queue",
        )

    def test_a_function_calls_another_in_another_process(self, app):
        """`remote` within a function runs in another process of the same queue."""
        outer, three, inner = app.nested.remote(2)
        assert three == 3
        assert outer != inner


class TestOneProcess:
    @pytest.fixture
    def under(self, pools):
        """Return a function that has this process spawn under another name."""
        with pytest.MonkeyPatch.context() as patch:
            yield lambda kind: patch.setenv("WSGI_TIMEOUT_NAME", pools[kind])

    def test_remote_in_the_only_process_is_an_error(self, app, under):
        """A function that waits for another in the only process is told so at once, and how to start more."""
        under("single")
        with pytest.raises(
            NoWorker, match=r"alone\.remote\(\) would wait for ever.*--function-processes.*\.local"
        ):
            app.alone.spawn().get(timeout=30)

    def test_a_spawn_in_the_only_process_is_none(self, app, under):
        """A spawn waits for nothing, so that one process is enough."""
        under("single")
        inner = app.spawns.spawn().get(timeout=30)
        assert FunctionCall.from_id(inner).get(timeout=30) == 2

    def test_another_thread_is_another_slot(self, app, under):
        """With two threads one process is enough for a function that waits for another."""
        under("threads")
        assert app.nested.spawn(1).get(timeout=30)[1] == 2

    def test_remote_without_workers_is_refused(self, app, under):
        """Without any worker `remote` is refused after `worker_wait`, naming the command to start one."""
        under("none")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WSGI_TIMEOUT_WORKER_WAIT", "0.3")
            with pytest.raises(NoWorker, match="start one with `wsgi-timeout worker TARGET`"):
                app.add.remote(1)

    def test_spawn_without_workers_is_queued(self, app, under):
        """A spawn is accepted whether anybody lives or not: its worker may come up later."""
        under("none")
        call = app.add.spawn(1)
        assert call.status()["state"] == "queued"
        call.cancel()


class TestLimits:
    @pytest.mark.usefixtures("busy")
    def test_a_full_queue_refuses(self, app):
        """With `max_spawned` calls in the queue a spawn is refused, and says how many wait."""
        waiting = [app.add.spawn(number) for number in range(2)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WSGI_TIMEOUT_MAX_SPAWNED", "2")
            with pytest.raises(QueueFull, match="2 calls wait"):
                app.add.spawn(3)
        for call in waiting:
            call.cancel()

    def test_nothing_is_left_without_a_ttl(self, app):
        """What a call leaves in Redis has an end: its record, its job, its chunks."""
        call = app.blob.spawn(3_000_000)
        call.get()
        found = {
            key.decode(): client().redis.ttl(key) for key in client().redis.scan_iter(f"*{call.object_id}*")
        }
        assert {f"wt:call:{call.object_id}", f"wt:value:{call.object_id}:1"} <= found.keys()
        assert all(ttl > 0 for ttl in found.values()), found
