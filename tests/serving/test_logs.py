"""What both halves log of a call: a line with its id, route, outcome and times, as JSON if asked for."""

import html
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import ask, follow, until

ROUTES = {
    "/fast": {"wait_seconds": 30},
    "/gate": {},
    "POST /slow": {},
    "PUT /slow": {"wait_for_response": False},
    "/dies": {"max_attempts": 1},
    "/guarded": {"timeout": 0.5},
    "/file": {"wait_seconds": 30},
}


@pytest.fixture(scope="module")
def site(deploy):
    """A site with one worker whose logs are JSON, and that warns early."""
    return deploy(
        pool=("--processes", "1"),
        gateway=f"routes={ROUTES!r}",
        wait_seconds=0.5,
        log_format="json",
        slow_queue_seconds=0.5,
        reader_timeout=2,
    )


def lines(process):
    """Return the log lines of a process that are objects."""
    return [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]


def calls_told(process, request_id):
    """Return the lines of a call by the X-Request-ID of its request, without those of the access log."""
    return [
        line
        for line in lines(process)
        if line.get("request_id") == request_id and line["logger"] != "gunicorn.access"
    ]


def of_call(process, call_id):
    return [line for line in lines(process) if line.get("call") == call_id]


# First: a pool warns once a minute, also of a call that waits while an interrupted worker is replaced.
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
    assert sent["request_id"] == "from-the-proxy"
    assert (sent["queue_seconds"], sent["what"]) == (ran["queue_seconds"], "GET /gate")
    assert sent["total_seconds"] >= sent["run_seconds"] >= sent["queue_seconds"]
    assert (seen["status"], seen["path"]) == (200, "/gate")
    assert "secret" not in site.web.output + site.pool.output


def at_once(site, _gate, **headers):
    assert ask(site.web.port, "/fast", headers=headers).status == 200


def after_hops(site, _gate, **headers):
    assert follow(site.web.port, "/slow?seconds=1.2", "POST", body=b"x", headers=headers)[-1].status == 200


def fetched_twice(site, _gate, **headers):
    first = ask(site.web.port, "/slow?seconds=0.7", "POST", body=b"x", headers=headers)
    last = follow(site.web.port, first.location)[-1]
    assert last.text == ask(site.web.port, first.location).text
    assert ask(site.web.port, first.location, "HEAD").status == 200


def fetched_later(site, _gate, **headers):
    accepted = ask(site.web.port, "/slow?seconds=0.1", "PUT", body=b"x", headers=headers)
    assert accepted.status == 202
    assert follow(site.web.port, accepted.location)[-1].status == 200


def streamed(site, gate, **headers):
    first = ask(site.web.port, f"/big?size=3000000&file={gate}", headers=headers)
    assert len(first.body) == 3_000_000


def raised(site, _gate, **headers):
    assert ask(site.web.port, "/raises", headers=headers).status == 500


def killed(site, _gate, **headers):
    assert follow(site.web.port, "/dies", headers=headers)[-1].status == 502


def timed_out(site, gate, **headers):
    assert follow(site.web.port, f"/guarded?file={gate}", headers=headers)[-1].status == 504


def cancelled(site, gate, **headers):
    first = ask(site.web.port, f"/gate?file={gate}", headers=headers)
    status_url = re.search("<([^>]+)>", first.header("Link"))[1]
    assert ask(site.web.port, status_url, "DELETE").status == 202
    assert follow(site.web.port, first.location)[-1].status == 410


@pytest.mark.parametrize(
    ("act", "what", "route", "outcome", "status", "sent"),
    [
        (at_once, "GET /fast", "/fast", "done", 200, "whole"),
        (after_hops, "POST /slow", "POST /slow", "done", 200, "whole"),
        (fetched_twice, "POST /slow", "POST /slow", "done", 200, "whole"),
        (fetched_later, "PUT /slow", "PUT /slow", "done", 200, "whole"),
        (streamed, "GET /big", "*", "done", 200, "whole"),
        (raised, "GET /raises", "*", "done", 500, "whole"),
        (killed, "GET /dies", "/dies", "lost", 502, "error"),
        (timed_out, "GET /guarded", "/guarded", "timeout", 504, "error"),
        (cancelled, "GET /gate", "/gate", "cancelled", 410, "error"),
    ],
)
def test_the_web_process_logs_one_line_a_call(site, gate, act, what, route, outcome, status, sent):
    """Whatever its end, a call has one line with its own method and route, what was sent, and all times."""
    tag = f"tag-{act.__name__}"
    act(site, gate, **{"X-Request-ID": tag})
    # A later request's line comes after all of this one's.
    at_once(site, gate, **{"X-Request-ID": f"after-{tag}"})
    until(lambda: calls_told(site.web, f"after-{tag}"), what="the next call's line")
    [line] = calls_told(site.web, tag)
    assert (line["what"], line["route"], line["outcome"]) == (what, route, outcome)
    assert (line["status"], line["sent"], line["attempt"]) == (status, sent, 1)
    assert line["hops"] >= (act in {after_hops, fetched_twice, fetched_later, cancelled})
    assert line["total_seconds"] + 0.01 >= line["queue_seconds"] + line["run_seconds"]
    if outcome == "lost":  # its process ended with it, as its pool's log says
        assert [told["level"] for told in of_call(site.pool, line["call"])] == ["ERROR"]
    else:
        until(lambda: calls_told(site.pool, tag), what="the worker's line")
        [ran] = calls_told(site.pool, tag)
        assert ran["queue_seconds"] == line["queue_seconds"]
        assert abs(ran["run_seconds"] - line["run_seconds"]) < 1


@pytest.mark.parametrize(
    ("path", "status", "sent"), [("/file", 499, "nothing"), ("/trickle", 200, "part")], ids=["waits", "reads"]
)
def test_a_client_that_leaves_is_logged(site, gate, path, status, sent):
    """Where its client has left before a response, or in the middle of it, the line says so."""
    with socket.create_connection(("127.0.0.1", site.web.port)) as client:
        head = f"GET {path}?file={gate} HTTP/1.1\r\nHost: a\r\nX-Request-ID: left-{path}\r\n\r\n"
        client.sendall(head.encode())
        if sent == "part":
            assert client.recv(1000)
    until(lambda: calls_told(site.web, f"left-{path}"), what="the line")
    [line] = calls_told(site.web, f"left-{path}")
    assert (line["outcome"], line["status"], line["sent"], line["hops"]) == ("left", status, sent, 0)
    assert "run_seconds" not in line


def navigate(port, target, jar):
    """Return the last answer to a browser that goes to an address, and keeps cookies in `jar`."""
    while True:
        cookie = "; ".join(f"{name}={value}" for name, value in jar.items())
        headers = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        answer = ask(port, target, headers={**headers, "X-Request-ID": "a-person", "Cookie": cookie})
        for name, value in answer.headers:
            if name == "Set-Cookie":
                key, _, rest = value.partition("=")
                jar[key] = rest.partition(";")[0]
                if "Max-Age=0" in value:
                    del jar[key]
        if answer.status != 303:
            return answer
        target = answer.location


def test_a_person_has_one_line_too(site, gate):
    """What a browser is shown at the app's own address has the call's id in the access log, and one line."""
    jar = {}
    page = navigate(site.web.port, f"/gate?file={gate}", jar)
    status_url, result_url = (
        html.unescape(re.search(f'data-{name}="([^"]*)"', page.text)[1]) for name in ("status", "result")
    )
    assert ask(site.web.port, status_url, "DELETE").status == 202
    assert navigate(site.web.port, result_url, jar).status == 410
    at_once(site, gate, **{"X-Request-ID": "after-a-person"})
    until(lambda: calls_told(site.web, "after-a-person"), what="the next call's line")
    [line] = calls_told(site.web, "a-person")
    assert (line["status"], line["route"], line["sent"]) == (410, "/gate", "error")
    seen = [each for each in of_call(site.web, line["call"]) if each["logger"] == "gunicorn.access"]
    assert {200, 303, 410} <= {each["status"] for each in seen}


def test_a_call_without_a_redirect_has_its_id_in_the_access_log(site):
    """The access log names the call of a request that was answered at once."""
    at_once(site, None, **{"X-Request-ID": "seen"})

    def access():
        return [
            line
            for line in lines(site.web)
            if line.get("request_id") == "seen" and line["logger"] == "gunicorn.access"
        ]

    until(access, what="the line")
    [seen] = access()
    until(lambda: of_call(site.pool, seen["call"]), what="the worker's line")


def test_what_an_app_raises_is_logged_by_its_worker_alone(deploy):
    """The worker's log has the traceback, the web process's one line without it."""
    bare = deploy("bare:app", pool=("--processes", "1"))
    assert ask(bare.web.port, "/?raise").status == 500
    until(
        lambda: "the app raised, see its worker's log: ValueError: as intended" in bare.web.output, what="it"
    )
    assert re.search(
        r"fc-\S+ GET / attempt 1 raised 500, queued \d+\.\d{3} s, ran \d+\.\d{3} s, "
        r"sent error after 0 hops and \d+\.\d{3} s, route \*",
        bare.web.output,
    )
    assert "Traceback" not in bare.web.output
    assert bare.pool.output.count("Traceback") == 1
