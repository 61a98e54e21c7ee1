"""Functions that fail: what their callers get, retries, queues and limits."""

import asyncio
import itertools
import re
import traceback
from datetime import timedelta

import pytest
from function_processes import PROCESSES, python
from harness import function_workers, spawning_with, until

from wsgi_timeout import FunctionCall
from wsgi_timeout.errors import (
    CallCancelled,
    CallTimedOut,
    NoWorker,
    PayloadRefused,
    QueueFull,
    RemoteError,
    ResultNotReady,
    WorkerLost,
)
from wsgi_timeout.functions.client import client

pytestmark = pytest.mark.usefixtures("here")


def lives(site):
    """Return whether the worker process lives that the last exception was raised in."""
    raised_in = int(site.runs("raises")[-1].split()[1])
    return raised_in in {process.pid for process in site.pool.workers()}


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
        with pytest.raises(RemoteError, match=f"the function raised {type(error).__name__}") as raised:
            app.raises.remote(error)
        assert type(raised.value.__cause__) is type(error)
        assert lives(site)

    def test_an_exception_that_cannot_be_rebuilt_comes_by_name(self, app):
        """An exception whose pickle cannot be read comes with its name, its text and its traceback."""
        with pytest.raises(RemoteError, match=r"spawned\.StubbornError: one and two") as raised:
            app.raises_stubborn.remote()
        assert "in raises_stubborn" in raised.value.__notes__[0]

    def test_an_exception_that_cannot_be_told_comes_by_name(self, app, site):
        """An exception with neither pickle nor text fails its call, and not its worker."""
        with pytest.raises(RemoteError, match=r"spawned\.UnspeakableError") as raised:
            app.raises_unspeakable.remote()
        assert "in raises_unspeakable" in raised.value.__notes__[0]
        assert lives(site)

    def test_a_long_exception_is_shortened(self, app):
        """Of an exception over `max_payload` the name and both ends of its text come."""
        shortened = r"(?s)ValueError: xxx.*\[\.\.\. \d+ characters left out"
        with spawning_with(max_payload=1_000_000), pytest.raises(RemoteError, match=shortened) as raised:
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
        complaint = python(site, code, call.object_id, WSGI_TIMEOUT_SECRET="another" * 5).stderr
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
        with spawning_with(retry_backoff=0.2):
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
        with spawning_with(retry_backoff=50):
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
        with spawning_with(retry_backoff=0):
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

    @pytest.mark.slow
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
        expected = "start one with `wsgi-timeout worker TARGET`"
        with spawning_with(worker_wait=0.3), pytest.raises(NoWorker, match=expected):
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
        with spawning_with(max_spawned=2), pytest.raises(QueueFull, match="2 calls wait"):
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
