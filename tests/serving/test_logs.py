"""What both halves log of a call: a line with its id, route, outcome and times, as JSON if asked for."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import ask, follow, until


@pytest.fixture(scope="module")
def site(deploy):
    """A site with one worker whose logs are JSON, and that warns early."""
    return deploy(
        pool=("--processes", "1"),
        gateway="only=['/fast', '/gate'], routes={'/fast': {'wait_seconds': 30}}",
        wait_seconds=0.5,
        log_format="json",
        slow_queue_seconds=0.5,
    )


def lines(process):
    """Return the log lines of a process that are objects."""
    return [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]


def of_call(process, call_id):
    return [line for line in lines(process) if line.get("call") == call_id]


def test_each_half_logs_a_line_a_call(site, gate):
    """The worker tells route, outcome and seconds, the web process hops; the access log has the same id."""
    headers = {"X-Request-ID": "from-the-proxy"}
    first = ask(site.web.port, f"/gate?file={gate}&secret=1", headers=headers)
    gate.touch()
    answers = follow(site.web.port, first.location)
    assert answers[-1].status == 200
    call_id = re.search(r"=(fc-[\w-]+)\.", first.location)[1]
    until(lambda: of_call(site.pool, call_id), what="the worker's line")
    [ran] = of_call(site.pool, call_id)
    assert (ran["what"], ran["route"], ran["outcome"], ran["attempt"]) == ("GET /gate", "/gate", "done", 1)
    assert ran["run_seconds"] >= ran["queue_seconds"] >= 0
    assert ran["request_id"] == "from-the-proxy"
    until(lambda: len(of_call(site.web, call_id)) == len(answers) + 2, what="the web process's lines")
    told = {line["logger"]: line for line in of_call(site.web, call_id)}
    sent, seen = told["wsgi_timeout"], told["gunicorn.access"]
    assert (sent["outcome"], sent["hops"], sent["route"]) == ("done", len(answers), "/gate")
    assert (seen["status"], seen["path"]) == (200, "/gate")
    assert "secret" not in site.web.output + site.pool.output


def test_a_call_without_a_redirect_has_its_id_in_the_access_log(site):
    """The access log names the call of a request that was answered at once."""
    assert ask(site.web.port, "/fast").status == 200
    until(lambda: [line for line in lines(site.web) if line.get("path") == "/fast"], what="the line")
    [seen] = [line for line in lines(site.web) if line.get("path") == "/fast"]
    until(lambda: of_call(site.pool, seen["call"]), what="the worker's line")


def test_what_an_app_raises_is_logged_by_its_worker_alone(deploy):
    """The worker's log has the traceback, the web process's one line without it."""
    bare = deploy("bare:app", pool=("--processes", "1"))
    assert ask(bare.web.port, "/?raise").status == 500
    until(
        lambda: "the app raised, see its worker's log: ValueError: as intended" in bare.web.output, what="it"
    )
    assert "Traceback" not in bare.web.output
    assert bare.pool.output.count("Traceback") == 1


def test_a_slow_queue_says_what_workers_do(site, gate):
    """When a call waits longer than `slow_queue_seconds` the pool says so, and names what runs."""
    with ThreadPoolExecutor(2) as threads:
        runs = threads.submit(follow, site.web.port, f"/gate?file={gate}")
        try:
            until(lambda: site.redis.client.zcard(f"rq:wip:wt:{site.name}") == 1, what="a call that runs")
            waits = threads.submit(follow, site.web.port, "/fast")
            assert site.pool.wait_for(
                r"has waited for \d+ s, 1 calls wait; workers run fc-\S+ GET /gate", 20.0
            )
        finally:
            gate.touch()
        assert (runs.result()[-1].status, waits.result()[-1].status) == (200, 200)
