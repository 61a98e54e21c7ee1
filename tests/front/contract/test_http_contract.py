"""What HTTP clients see: the app's own answers, the redirects before them, and the few answers of ours."""

import signal
import socket
import time

import psutil
import pytest
from contract_site import SLOW, get, undated, unframed
from harness import APPS, Gunicorn, ask, follow, raw_request, until
from result_urls import MARK, call_in, ready_result, status_url, until_delivered
from rq.job import Job
from rq.serializers import JSONSerializer

from wsgi_timeout.serving import gunicorn_conf

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# -- the app's own answer


def test_status_reason_and_headers_come_in_the_apps_order(patient):
    """Status, reason phrase, repeated headers and body reach the client as the app gave them."""
    answer = ask(patient.port, "/headers")
    assert (answer.status, answer.reason, answer.body) == (201, "Made Up", b"headers\n")
    assert answer.app_headers == [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", "8"),
        ("Set-Cookie", "a=1; Path=/"),
        ("X-Order", "first"),
        ("Set-Cookie", "b=2; Path=/"),
        ("X-Order", "second"),
    ]


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/fast?tag=same"),
        ("HEAD", "/fast?tag=same"),
        ("OPTIONS", "/fast"),
        ("GET", "/headers"),
        ("GET", "/numbers?size=300000"),
        ("HEAD", "/numbers"),
        ("GET", "/empty?status=204"),
        ("GET", "/empty?status=304"),
        ("GET", "/empty?status=200"),
        ("GET", "/file?cache=max-age=60"),
        ("GET", "/nowhere"),
        ("POST", "/pid"),
        ("PROPFIND", "/fast"),
        ("GET", "/raises"),
        ("GET", "/breaks"),
        ("GET", "/breaks?pieces=2"),
        ("GET", "/breaks?pieces=2&length=1000"),
    ],
)
def test_a_direct_answer_is_what_gunicorn_alone_sends(patient, plain, seen, method, target):
    """A response within the wait is what the app under gunicorn alone sends, but for where chunks end."""
    request = get(target, method)
    began = time.monotonic()
    answer = raw_request(patient.port, request)
    seen("the response", [time.monotonic() - began])
    assert unframed(undated(answer)) == unframed(undated(raw_request(plain.port, request)))


def test_a_response_comes_as_soon_as_it_is_there(patient):
    """A request is answered when its handler is done, not when its wait is over."""
    began = time.monotonic()
    assert [ask(patient.port, "/fast").status for _ in range(10)] == [200] * 10
    # Each wake that went astray would cost a second on average, two at most.
    assert time.monotonic() - began < 5


def test_a_response_is_passed_on_as_it_comes(patient, gate):
    """What the app has yielded reaches the client while the handler goes on."""
    with socket.create_connection(("127.0.0.1", patient.port), timeout=30) as client:
        client.sendall(get(f"/trickle?file={gate}"))
        answer = b""
        while b"one\n" not in answer:
            answer += client.recv(65536)
        gate.touch()
        while piece := client.recv(65536):
            answer += piece
    assert answer.endswith(b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n")


def test_a_handler_runs_in_a_worker_process_that_loaded_the_app_itself(site, patient):
    """Requests run in the pool's processes, each of which imports the app once; web processes never do."""
    answers = [ask(patient.port, "/pid").json for _ in range(30)]
    pids = {answer["pid"] for answer in answers}
    workers = {process.pid for process in site.pool.workers()}
    assert all(answer["loaded_in"] == answer["pid"] for answer in answers)
    assert len(workers) == 2
    assert pids <= workers
    until(lambda: len(site.runs("import")) == 2, what="the second import")
    assert {int(line.split()[1]) for line in site.runs("import")} == workers


def test_a_request_is_an_rq_job(site, port, gate):
    """While its handler runs, RQ shows the call as a started job of one of our workers, without the token."""
    location = ask(port, f"/gate?file={gate}").location
    call_id, token, _ = call_in(location)
    job = Job.fetch(call_id, connection=site.redis.client, serializer=JSONSerializer)
    assert (job.get_status(), job.origin) == ("started", f"wt:{site.name}")
    assert job.worker_name.startswith(f"{site.name}-")
    assert token.encode() not in b"".join(site.redis.client.hvals(f"rq:job:{call_id}"))


def test_direct_delivery_leaves_nothing_in_redis(site, patient):
    """A response that was delivered at once leaves no key of its call behind, whatever became of it."""

    def keys():
        found = site.redis.client.scan_iter(match="*fc-*", count=1000)
        return {*found, *site.redis.client.zrange(f"rq:wip:wt:{site.name}", 0, -1)}

    before = keys()
    for target in ("/fast", "/numbers", "/breaks", "/breaks?pieces=1"):
        raw_request(patient.port, get(target))
    raw_request(patient.port, get("/hash", "POST", "Content-Length: 100000") + bytes(100_000))
    until(lambda: keys() <= before, what="no key of these calls")


def test_the_app_never_sees_our_parameters(port, patient):
    """Our parameters are taken out of query, raw URI and Referer before the app sees them."""
    location = ask(port, f"/slow?a=1&{SLOW}").location
    answer = ask(
        patient.port,
        "/echo?x=1&__wsgi_timeout_hop=7&&y=%7e",
        headers={"Referer": f"http://127.0.0.1:{patient.port}{location}"},
    )
    environ = answer.json["environ"]
    assert answer.json["query"] == "x=1&&y=%7e"
    assert answer.json["referer"] == f"http://127.0.0.1:{patient.port}/slow?a=1&{SLOW}"
    assert environ["RAW_URI"] == "/echo?x=1&&y=%7e"
    assert not [key for key, value in environ.items() if MARK in value]


def test_the_front_keeps_to_pep_3333(site):
    """Under the standard library's validator every kind of answer passes."""
    spec = f"validated:wrapped({site.target!r}, {site.name!r})"
    waits = {"WSGI_TIMEOUT_WAIT_SECONDS": "20"}
    web, hasty = (Gunicorn(spec, site.redis.url, env={**site.env, **more}, cwd=APPS) for more in (waits, {}))
    try:
        location = ready_result(hasty.port, f"/slow?{SLOW}")

        def status(method, target, body):
            if method == "POST" and target == location:
                until_delivered(web.port, location)
            return ask(web.port, target, method, body=body).status

        seen = [
            status(method, target, body)
            for method, target, body in [
                ("GET", "/fast", None),
                ("HEAD", "/fast", None),
                ("GET", "/numbers", None),
                ("POST", "/hash", b"x"),
                ("POST", "/hash", bytes(100_000)),
                ("GET", status_url(location), None),
                ("HEAD", location, None),
                ("GET", location, None),
                ("POST", location, b"x"),
                ("DELETE", status_url(location), None),
                ("GET", location[:-30], None),
                ("GET", "/breaks", None),
            ]
        ]
        assert seen == [200, 200, 200, 200, 200, 200, 200, 200, 307, 409, 404, 500]
        assert "AssertionError" not in web.output + hasty.output
    finally:
        web.stop()
        hasty.stop()


# -- refusals and failures


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(site, strict, chunked):
    """A request body over `max_request_body` gets 413, whether its length was announced or not."""

    def post(size):
        data = bytes(size)
        body = iter([data[:600], data[600:]]) if chunked else data
        return ask(strict.port, f"/echo?tag=limit{chunked}", "POST", body=body)

    assert post(1000).json["length"] == 1000
    answer = post(1001)
    assert (answer.status, answer.header("Content-Type")) == (413, "application/problem+json")
    # The setting is for the operator, who finds it by the reference.
    assert answer.json["detail"] == "the request body is larger than is accepted here"
    strict.wait_for(f"reference {answer.json['reference']}: 413 to POST /echo: .*max_request_body")
    assert len(site.runs(f"limit{chunked}")) == 1


def test_a_websocket_is_refused(site, port):
    """An upgrade to a WebSocket gets 501 and runs nothing."""
    answer = ask(port, "/fast?tag=socket", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert answer.status == 501
    assert "WebSocket" in answer.json["detail"]
    assert not site.runs("socket")


def test_a_handler_over_its_timeout_gets_504(site, strict, tmp_path):
    """A handler that runs longer than its timeout ends in 504, and another process takes its place."""
    target = f"/guarded?file={tmp_path}/never&tag=late"
    last = follow(strict.port, target)[-1]
    assert (last.status, last.header("Content-Type")) == (504, "application/problem+json")
    assert last.json["detail"] == "it took longer than is allowed"
    assert len(site.runs("late-finally")) == 1
    pid = int(site.runs("late")[0].split()[1])
    until(lambda: not psutil.pid_exists(pid), what="the end of the interrupted process")
    assert {ask(strict.port, "/pid").json["pid"] for _ in range(5)}.isdisjoint({pid})


def test_a_browser_gets_a_page_for_a_504(strict, tmp_path):
    """A failure of a call is a small page for a browser."""
    target = f"/gate?file={tmp_path}/never"
    last = follow(strict.port, target, headers={"Accept": "text/html"})[-1]
    assert (last.status, last.header("Content-Type")) == (504, "text/html; charset=utf-8")
    assert "<title>This took too long</title>" in last.text
    assert "0.5 s" not in last.text


# -- the gunicorn worker


def test_each_gunicorn_runs_the_worker_that_is_tested(site, strict, request):
    """The contract is kept by both of our worker classes."""
    kind = request.node.callspec.params["site"]
    for web in (site.web, strict):
        until(lambda web=web: ask(web.port, "/fast").status == 200, 20, "an answer of a worker")
        assert web.wait_for(r"Using worker: (\S+)")[1] == (kind[1] if kind else gunicorn_conf.worker_class)
        assert "MonkeyPatchWarning" not in web.output


def test_a_worker_ends_when_it_is_told(site):
    """At TERM a worker that has just answered ends at once, with what it still had to say to Redis."""
    web = site.start_web()
    ready_result(web.port, f"/slow?{SLOW}")
    assert ask(web.port, "/breaks").status == 500
    web.popen.send_signal(signal.SIGTERM)
    assert web.popen.wait(10) == 0
    web.stop()
