"""RQ's own programs on our queues: its worker, its maintenance, its command line, and rq-dashboard."""

import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import rq
from harness import (
    APPS,
    Gunicorn,
    Process,
    RedisServer,
    ask,
    environment,
    joined,
    until,
)
from rq.command import send_stop_job_command
from rq.serializers import JSONSerializer

BIN = Path(sys.executable).parent
LEASE = 2.0
#: Seconds in which RQ's worker starts, or runs a job, for each of which it starts a process.
STARTED = 40
#: Tests that may have to wait for more than one of these.
LONG = pytest.mark.timeout(150)
UNSET = "WSGI_TIMEOUT_TARGET is not set"


@pytest.fixture(scope="module")
def redis_server():
    """A server of these tests' own: RQ's tools show and suspend all that is on it."""
    server = RedisServer()
    yield server
    server.close()


class StockWorker(Process):
    """`rq worker` as its user starts it."""

    def __init__(self, server, queue, *options, env, **variables):
        words = ("worker", "--url", server.url, "--serializer", "json", *options, queue)
        super().__init__([BIN / "rq", *words], env={**env, **variables}, cwd=APPS)
        self.wait_for(r"Listening on", STARTED)

    def horses(self):
        """Return the processes that run jobs."""
        return self.descendants()


@pytest.fixture(scope="module")
def site(deploy):
    """A deployment with a pool, for a stock worker that serves with it."""
    # Longer than RQ's programs take to start on a busy machine.
    return deploy(pool=("--processes", "2"), wait_seconds=60, lease_seconds=LEASE)


@pytest.fixture(scope="module")
def stock(redis_server, tmp_path_factory):
    """A web process without a pool, and one stock worker for it."""
    stock = Stock(redis_server, "stock", tmp_path_factory.mktemp("stock") / "runs")
    worker = stock.start_worker(WSGI_TIMEOUT_TARGET="basic:app")
    stock.worker = worker
    yield stock
    stock.web.stop()
    worker.stop()


class Stock:
    """A web process for `basic:app` under a name of its own, whose queue no pool serves."""

    def __init__(self, server, name, runs):
        self.server = server
        self.name = name
        self.runs_file = runs
        runs.touch()
        self.env = {
            **environment(wait_seconds=50, lease_seconds=LEASE, worker_wait=1),
            "RUNS_FILE": str(runs),
        }
        self.web = Gunicorn(f"wsgi_timeout:gateway('basic:app', name={name!r})", server.url, env=self.env)
        self.port = self.web.port

    def start_worker(self, *options, **variables):
        return StockWorker(self.server, f"wt:{self.name}", *options, env=self.env, **variables)

    def runs(self, tag):
        return [line for line in self.runs_file.read_text().splitlines() if line.split()[0] == tag]


# -- RQ's worker


class TestWorker:
    def test_it_runs_calls(self, stock):
        """A stock worker, told of the target, runs requests, in a process of its own for each."""
        answers = [ask(stock.port, "/pid").json for _ in range(2)]
        assert all(answer["pid"] == answer["loaded_in"] for answer in answers)
        assert answers[0]["pid"] != answers[1]["pid"]
        assert not {answer["pid"] for answer in answers} & {p.pid for p in stock.web.workers()}

    def test_large_bodies_pass(self, stock):
        """Bodies that travel in streams do so with a stock worker too."""
        answer = ask(stock.port, "/mirror", "POST", body=b"0123456789" * 50_000)
        assert answer.body == b"0123456789" * 50_000

    def test_what_its_jobs_leave(self, stock):
        """Of a call that a stock worker ran nothing is left, not in RQ's registries either."""
        assert ask(stock.port, "/fast").status == 200
        client = stock.server.client
        until(lambda: not list(client.scan_iter("*fc-*", count=1000)), what="no key of a call")
        assert not client.zcard("rq:wip:wt:stock")
        assert not client.zcard("rq:failed:wt:stock")
        assert not client.hlen("wt:leases:stock")

    def test_it_runs_functions(self, stock):
        """A stock worker of a functions' queue runs spawned calls."""
        env = {**stock.env, "WSGI_TIMEOUT_SECRET": "one for all" * 3}
        with joined(stock.server.url, "spawned-stock", env):
            from spawned import add

            call = add.spawn(20, b=22)
            queue = "wt:spawned-stock:functions"
            worker = StockWorker(stock.server, queue, env=env, WSGI_TIMEOUT_TARGET="spawned:stub")
            try:
                assert call.get(timeout=20) == 42
            finally:
                worker.stop()

    def test_a_cancel_interrupts_the_handler(self, stock, tmp_path):
        """A call that is cancelled ends as in a pool: its handler's `finally` runs."""
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(ask, stock.port, f"/guarded?file={tmp_path}/never&tag=cancelled")
            until(lambda: stock.runs("cancelled"), what="the handler")
            cancel(stock)
            assert answer.result().status == 410
        until(lambda: stock.runs("cancelled-finally"), what="its finally")

    def test_rqs_stop_ends_the_call(self, stock, tmp_path):
        """RQ's command to stop a job kills its process: the call ends as cancelled, and runs no more."""
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(ask, stock.port, f"/guarded?file={tmp_path}/never&tag=stopped")
            until(lambda: stock.runs("stopped"), what="the handler")
            send_stop_job_command(stock.server.client, the_running(stock), serializer=JSONSerializer)
            assert answer.result().status == 410
        assert ask(stock.port, "/fast").status == 200
        assert len(stock.runs("stopped")) == 1

    @LONG
    @pytest.mark.parametrize(("method", "path", "status"), [("GET", "/gate", 200), ("POST", "/hash", 502)])
    def test_its_dead_process_is_noticed(self, stock, tmp_path, method, path, status):
        """A call whose process was killed runs again or is lost, as in a pool, whatever RQ thinks of it."""
        gate, tag = tmp_path / "gate", f"killed{method}"
        body = b"x" if method == "POST" else None
        with ThreadPoolExecutor(1) as threads:
            target = f"{path}?file={gate}&tag={tag}"
            answer = threads.submit(ask, stock.port, target, method, body=body, timeout=55)
            run = until(lambda: stock.runs(tag), STARTED, "the handler")[0]
            psutil.Process(int(run.split()[1])).kill()
            until(lambda: answer.done() or len(stock.runs(tag)) == 2, STARTED, "the recovery")
            gate.touch()
            assert answer.result().status == status
        assert len(stock.runs(tag)) == (2 if status == 200 else 1)

    @LONG
    def test_without_a_target_a_call_is_put_back(self, redis_server, tmp_path):
        """A stock worker that was told of no target says so, and puts the call back for one that was."""
        stock = Stock(redis_server, "untold", tmp_path / "runs")
        worker = stock.start_worker()
        told = None
        try:
            with ThreadPoolExecutor(1) as threads:
                answer = threads.submit(ask, stock.port, "/fast?tag=untold", timeout=55)
                found = worker.wait_for(r"call (\S+) is put back: (.*)", STARTED)
                assert found[2] == f"{UNSET}: set it to the app of queue wt:untold, as in legacy:app"
                told = stock.start_worker(WSGI_TIMEOUT_TARGET="basic:app")
                assert answer.result().text == "fast untold\n"
            assert len(stock.runs("untold")) == 1
            assert not redis_server.client.zcard("rq:failed:wt:untold")
        finally:
            for process in (stock.web, worker, told):
                if process:
                    process.stop()


# -- RQ's maintenance


class Maintenance:
    """RQ's own clean-up of one queue, over and over, as if an hour went by between two rounds."""

    def __init__(self, server, queue_name):
        self.rounds = 0
        self.error = None
        self._worker = rq.SimpleWorker([queue_name], connection=server.client, serializer="json")
        (self.queue,) = self._worker.queues
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._ended.wait(0.01):
            try:
                self._round()
            except Exception as error:  # noqa: BLE001 - the test shows it
                self.error = error
                return
            self.rounds += 1

    def _round(self):
        self.queue.release_maintenance_lock()
        self._worker.clean_registries()
        self.queue.started_job_registry.cleanup(timestamp=time.time() + 3600)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()


class TestMaintenance:
    def test_it_neither_fails_nor_doubles_a_call(self, site, gate):
        """Calls that run, and calls that wait, stay as they are while RQ cleans up; each runs once."""
        queue = f"wt:{site.name}"
        with ThreadPoolExecutor(22) as threads, Maintenance(site.redis, queue) as maintenance:
            held = [threads.submit(ask, site.web.port, f"/gate?file={gate}&tag=held{n}") for n in range(2)]
            until(lambda: site.runs("held0") and site.runs("held1"), what="both handlers")
            waiting = [threads.submit(ask, site.web.port, f"/fast?tag=waits{n}") for n in range(20)]
            until(lambda: site.redis.client.llen(f"rq:queue:{queue}") == 20, what="the queue")
            until(lambda rounds=maintenance.rounds: maintenance.rounds > rounds + 20, what="RQ's clean-up")
            gate.touch()
            answers = [one.result() for one in held + waiting]
        assert maintenance.error is None
        assert {answer.status for answer in answers} == {200}
        runs = [line.split()[0] for line in site.runs()]
        assert sorted(runs) == sorted({*runs})
        assert not site.redis.client.zcard(f"rq:failed:{queue}")

    def test_a_stock_workers_maintenance_leaves_our_workers_listed(self, site):
        """RQ takes workers off its lists that are silent for long: never one of ours that lives."""
        with Maintenance(site.redis, f"wt:{site.name}") as maintenance:

            def all_listed():
                listed = {worker.pid for worker in rq.Worker.all(queue=maintenance.queue)}
                return listed == {process.pid for process in site.pool.workers()}

            until(all_listed, what="workers that earlier tests had replaced")
            rounds = maintenance.rounds
            until(lambda: maintenance.rounds > rounds + 5, what="RQ's clean-up")
        assert maintenance.error is None
        assert all_listed()

    def test_a_call_that_a_stock_worker_popped_and_never_started_runs(self, site, gate):
        """What died between RQ's queue and its start is put back after a lease, and runs once."""
        queue = f"rq:queue:wt:{site.name}"
        with ThreadPoolExecutor(3) as threads:
            held = [threads.submit(ask, site.web.port, f"/gate?file={gate}&tag=busy{n}") for n in range(2)]
            until(lambda: site.runs("busy0") and site.runs("busy1"), what="both handlers")
            popped = threads.submit(ask, site.web.port, "/fast?tag=popped")
            # As RQ's worker pops it; this one dies right then.
            assert site.redis.client.blmove(queue, f"{queue}:intermediate", 10, "RIGHT", "LEFT")
            gate.touch()
            assert popped.result().text == "fast popped\n"
            assert {one.result().status for one in held} == {200}
        assert len(site.runs("popped")) == 1
        assert not site.redis.client.exists(f"{queue}:intermediate")

    @LONG
    def test_a_stock_worker_does_not_run_what_runs(self, site, gate):
        """A call that stands in RQ's queue a second time, while it runs, is passed over by a stock worker."""
        queue = f"wt:{site.name}"
        with ThreadPoolExecutor(3) as threads:
            targets = [f"/gate?file={gate}&tag=twice{n}" for n in range(2)]
            held = [threads.submit(ask, site.web.port, target, timeout=60) for target in targets]
            until(lambda: site.runs("twice0") and site.runs("twice1"), what="both handlers")
            worker = StockWorker(site.redis, queue, env=site.env, WSGI_TIMEOUT_TARGET="basic:app")
            try:
                for entry in site.redis.client.zrange(f"rq:wip:{queue}", 0, -1):
                    site.redis.client.rpush(f"rq:queue:{queue}", entry.decode().partition(":")[0])
                until(lambda: worker.output.count("Job OK") == 2, STARTED, "both jobs")
            finally:
                worker.stop()
            assert not any(one.done() for one in held)
            gate.touch()
            assert {one.result().status for one in held} == {200}
        assert len(site.runs("twice0")) == len(site.runs("twice1")) == 1


# -- RQ's tools


def rq_command(site, command, *words):
    """Run RQ's command line, and return what it says."""
    shown = Process([BIN / "rq", command, "--url", site.redis.url, *words], env=site.env, cwd=APPS)
    assert shown.popen.wait(30) == 0, shown.output
    shown.stop()
    return shown.output


@pytest.fixture
def held(site, gate):
    """A call that runs until its gate opens."""
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(ask, site.web.port, f"/guarded?file={gate}&tag=guarded-{gate.parent.name}")
        until(lambda: site.runs(f"guarded-{gate.parent.name}"), what="the handler")
        yield answer
        gate.touch()


class TestTools:
    @pytest.mark.usefixtures("held")
    def test_info(self, site):
        """`rq info` shows our queue with what waits in it, and our workers, busy or idle."""
        queue = f"wt:{site.name}"
        assert f"queue {queue} 0" in rq_command(site, "info", "--raw", "--only-queues", queue)

        def states():
            shown = rq_command(site, "info", "--raw", "--only-workers", queue)
            line = rf"^worker {site.name}-\S+ \(.*\) (\w+) {queue}\. jobs: \d+ finished, \d+ failed$"
            return sorted(re.findall(line, shown, re.MULTILINE))

        until(lambda: states() == ["busy", "idle"], what="a busy worker and an idle one")

    def test_suspend_and_resume(self, site, held, gate):
        """After `rq suspend` no call is taken, and those that run go on; `rq resume` ends that."""

        def looked():
            """Wait until the pool has looked whether it is suspended."""
            before = site.redis.client.info("commandstats")["cmdstat_exists"]["calls"]
            until(
                lambda: site.redis.client.info("commandstats")["cmdstat_exists"]["calls"] > before + 2,
                what="the pool's looks",
            )

        rq_command(site, "suspend")
        try:
            looked()
            with ThreadPoolExecutor(1) as threads:
                waits = threads.submit(ask, site.web.port, "/fast?tag=suspended")
                gate.touch()
                assert held.result().status == 200
                looked()
                assert site.redis.client.llen(f"rq:queue:wt:{site.name}") == 1
                rq_command(site, "resume")
                assert waits.result().text == "fast suspended\n"
        finally:
            rq_command(site, "resume")

    def test_stop_job(self, site, held, gate):
        """RQ's command to stop a job ends a running call as cancelled; its handler runs its `finally`."""
        (entry,) = site.redis.client.zrange(f"rq:wip:wt:{site.name}", 0, -1)
        send_stop_job_command(site.redis.client, entry.decode().partition(":")[0], serializer=JSONSerializer)
        assert held.result().status == 410
        until(lambda: site.runs(f"guarded-{gate.parent.name}-finally"), what="its finally")


class TestDashboard:
    @pytest.fixture(scope="class")
    @classmethod
    def dashboard(cls, site):
        """Return the port of an rq-dashboard, which does not tell it."""
        words = ("--bind", "127.0.0.1", "--port", "0", "--redis-url", site.redis.url, "--json")
        dashboard = Process([BIN / "rq-dashboard", *words], env=site.env)

        def ports():
            return [one.laddr.port for one in psutil.Process(dashboard.pid).net_connections("tcp")]

        yield until(ports, 20, "rq-dashboard")[0]
        dashboard.stop()

    @pytest.mark.parametrize("page", ["/", "/0/view/jobs", "/0/view/workers"])
    def test_its_pages(self, dashboard, page):
        """The pages of rq-dashboard come up."""
        assert ask(dashboard, page).status == 200

    @pytest.mark.usefixtures("held")
    def test_its_queues(self, site, dashboard):
        """It counts what waits and runs in our queue."""
        (queue,) = [
            q for q in ask(dashboard, "/0/data/queues.json").json["queues"] if q["name"] == f"wt:{site.name}"
        ]
        assert (queue["count"], queue["started_job_registry_count"]) == (0, 1)

    @pytest.mark.usefixtures("held")
    def test_its_jobs(self, site, dashboard):
        """It lists the call that runs, without its query, and shows it as a job of ours."""
        shown = ask(dashboard, f"/0/data/jobs/wt:{site.name}/started/8/asc/1.json").json
        (job,) = shown["jobs"]
        assert job["description"] == "GET /guarded"
        one = ask(dashboard, f"/0/data/job/{job['id']}.json").json
        assert (one["status"], one["origin"]) == ("started", f"wt:{site.name}")
        assert ask(dashboard, f"/0/view/job/{job['id']}").status == 200

    def test_its_workers(self, site, dashboard):
        """It lists our workers with their queue."""
        workers = ask(dashboard, "/0/data/workers.json").json["workers"]
        # An `rq worker` that a test had to kill stands there for a while, too.
        ours = [worker for worker in workers if worker["name"].startswith(site.name)]
        assert [worker["queues"] for worker in ours] == [[f"wt:{site.name}"]] * 2


def the_running(stock):
    """Return the id of the one call that runs."""
    (entry,) = {
        entry.decode().partition(":")[0]
        for entry in stock.server.client.zrange(f"rq:wip:wt:{stock.name}", 0, -1)
    }
    return entry


def cancel(stock):
    """Cancel the call that runs, as a POST to its status URL does."""
    call_id = the_running(stock)
    token, path = stock.server.client.hmget(f"wt:call:{call_id}", "token", "path")
    target = f"{path.decode()}?__wsgi_timeout_status={call_id}.{token.decode()}"
    assert ask(stock.port, target, "POST").status == 202
