"""Functions that run elsewhere: their handles, results, failures, retries and queues."""

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from function_processes import python
from harness import APPS, Pool, ask, follow, spawning_with, until

from wsgi_timeout import FunctionCall, gather
from wsgi_timeout.errors import (
    CallCancelled,
    ConfigurationError,
    OutputExpiredError,
    RedisUnavailable,
    ResultNotReady,
)
from wsgi_timeout.functions.client import client
from wsgi_timeout.settings import Settings

pytestmark = pytest.mark.usefixtures("here")


class TestResults:
    def test_a_spawned_call_returns_its_result(self, app):
        """What a function returns in a worker is what `get` returns here."""
        assert app.add.spawn(1, b=2).get() == 3

    def test_the_settings_are_read_once(self, app):
        """A process reads the environment at its first spawn only: doing so each time is slow."""
        loads = []

        def count(frame, event, _argument):
            if event == "call" and frame.f_code is Settings.load.__func__.__code__:
                loads.append(frame.f_back.f_code.co_name)

        app.add.spawn(1).cancel()
        sys.setprofile(count)
        try:
            calls = [app.add.spawn(number) for number in range(5)]
            for call in calls:
                call.cancel()
        finally:
            sys.setprofile(None)
        assert loads == []

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
        with pytest.raises(asyncio.TimeoutError):  # a class of its own before Python 3.11
            asyncio.run(main())
        assert time.monotonic() - began < 20
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

    def test_a_poll_does_not_queue_behind_those_that_wait(self, app, gate):
        """A thousand that poll, beside hundreds that wait, cost round trips and no thread each."""
        call = app.held.spawn(str(gate), "polled-by-many")

        async def main():
            waiting = [asyncio.ensure_future(call.get.aio()) for _ in range(300)]
            polls = await asyncio.gather(
                *(call.get.aio(timeout=0) for _ in range(1000)), return_exceptions=True
            )
            assert {type(poll) for poll in polls} == {ResultNotReady}
            assert len([t for t in threading.enumerate() if t.name.startswith("wsgi-timeout-get")]) <= 8
            gate.touch()
            return await asyncio.gather(*waiting)

        assert asyncio.run(main()) == ["polled-by-many"] * 300

    def test_a_handle_can_be_sent(self, app):
        """A call's handle may be an argument or a result, as any object."""
        inner = app.add.spawn(1, 1)
        assert app.add.remote([inner], [])[0].get() == 2

    def test_a_web_app_spawns_and_gets(self, site):
        """A web function of the stub spawns a function in one request, and gets its result in another."""
        call_id = follow(site.web.port, "/spawn", "POST")[-1].json["id"]
        assert follow(site.web.port, f"/get/{call_id}")[-1].json == {"result": 3}
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

    def test_a_waiter_is_woken_by_the_end(self, app, threads, gate):
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
        assert abs(datetime.now(timezone.utc) - ended["ended"]) < timedelta(minutes=1)

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
        with spawning_with(function_result_ttl=1):
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
