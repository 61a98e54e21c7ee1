"""What HTTP clients see: the app's own answers, the redirects before them, and the few answers of ours."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from array import array
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import requests
from harness import APPS, Gunicorn, answer_of, ask, follow, raw_request, until
from rq.job import Job
from rq.serializers import JSONSerializer

#: Seconds after which the deployment of this module redirects.
WAIT = 0.3
#: More than one wait, by what a busy machine may be late.
SLOW = "seconds=1"
#: Settings of what is to be answered at once, however busy the machine is.
AMPLE = {"wait_seconds": 20, "timeout": 20}

OURS = r"__wsgi_timeout_call=(fc-[\w-]{22})\.([\w-]{32})&__wsgi_timeout_hop=(\d+)"
MARK = "__wsgi_timeout_"

CLIENTS = {
    "curl": ["curl", "-sS", "-L"],
    "curl -d": ["curl", "-sS", "-L", "-d", "12345"],
    "curl -X POST": ["curl", "-sS", "-X", "POST", "-L", "-d", "12345"],
    "httpie": [Path(sys.executable).with_name("http"), "--follow", "--ignore-stdin", "GET"],
}

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("imported:app", pool=("--processes", "2"), wait_seconds=WAIT)


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


@pytest.fixture(scope="module")
def strict(site):
    """A second gunicorn on the same name, with tighter settings."""
    routes = {"/echo": AMPLE, "/pid": AMPLE, "/slow": {"timeout": 20}}
    options = "delivery_grace=0.5, max_request_body=1000, timeout=0.5, trusted_proxies='10.0.0.1'"
    web = site.start_web(gateway=f"{options}, routes={routes}")
    yield web
    web.stop()


@pytest.fixture(scope="module")
def no_wait(site):
    """A third one, which answers 202."""
    web = site.start_web(gateway="wait_for_response=False")
    yield web
    web.stop()


@pytest.fixture(scope="module")
def patient(site):
    """A fourth one, which waits long."""
    web = site.start_web(gateway="wait_seconds=50")
    yield web
    web.stop()


@pytest.fixture(scope="module")
def plain(site):
    """The same app under gunicorn alone."""
    options = ("-k", "gthread", "--threads", "8", "--no-control-socket")
    web = Gunicorn("basic:app", site.redis.url, *options, config=None, env=site.env, cwd=APPS)
    yield web
    web.stop()


@pytest.fixture
def busy(site, gate):
    """Both workers of the site have something to do until the test ends."""
    with ThreadPoolExecutor(2) as threads:
        tag = f"busy-{gate.parent.name}"
        list(threads.map(lambda _: ask(site.web.port, f"/gate?file={gate}&tag={tag}"), range(2)))
        until(lambda: len(site.runs(tag)) == 2, what="both workers at work")
        yield
        gate.touch()


def call_in(location):
    """Return the id, the token and the hop in a URL of ours."""
    return re.search(OURS, location).groups()


def status_url(location):
    """Return the status URL that belongs to a result URL."""
    return location.replace("__wsgi_timeout_call", "__wsgi_timeout_status").partition("&__wsgi_timeout_hop")[
        0
    ]


def has_ended(port, location):
    return ask(port, status_url(location)).json["state"] == "ended"


def ready_result(port, target, method="GET", **options):
    """Send a slow request, and return its result URL when the result lies there, not yet delivered."""
    first = ask(port, target, method, **options)
    assert first.status == 303, first
    until(lambda: has_ended(port, first.location), what="the end of the call")
    return first.location


def until_delivered(port, location):
    """Wait for the record of a delivery, which follows the last byte that the client got."""
    until(lambda: ask(port, status_url(location)).json["delivered"], what="the delivery")


def undated(raw):
    """Return a raw response without what differs between any two: the date, and the order of a set."""
    return re.sub(rb"\r\n(Date|Allow): [^\r]*", b"", raw)


def get(target, method="GET", *more):
    lines = (f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *more, "", "")
    return "\r\n".join(lines).encode()


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
    """A response within the wait is, byte for byte, what the app under gunicorn alone sends."""
    request = get(target, method)
    began = time.monotonic()
    answer = raw_request(patient.port, request)
    seen("the response", [time.monotonic() - began])
    assert undated(answer) == undated(raw_request(plain.port, request))


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


# -- the redirect


def test_a_slow_request_is_redirected_to_its_result_url(site, port):
    """After the wait the answer is an uncached 303 to the same URL, bytes kept, with our two parameters."""
    target = f"/slow?a&b=&=c&&x=%2F%zz&tag=exact&{SLOW}"
    started = time.monotonic()
    first = ask(port, target)
    assert time.monotonic() - started >= WAIT
    assert (first.status, first.reason, first.body) == (303, "See Other", b"")
    assert re.fullmatch(re.escape(target) + "&" + OURS, first.location)
    assert sorted(first.app_headers) == [
        ("Cache-Control", "no-store"),
        ("Content-Length", "0"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Location", first.location),
        ("Referrer-Policy", "no-referrer"),
    ]
    *hops, last = follow(port, first.location)
    assert (last.status, last.text) == (200, "slow GET exact 0\n")
    assert len(site.runs("exact")) == 1
    numbers = [int(call_in(answer.location)[2]) for answer in (first, *hops)]
    assert numbers == list(range(1, len(hops) + 2))


def test_hops_count_up_on_one_call(port, gate):
    """Each redirect of a chain names the same call, and another hop."""
    chain = [ask(port, f"/gate?file={gate}")]
    for _ in range(2):
        chain.append(ask(port, chain[-1].location))
    calls = [call_in(answer.location) for answer in chain]
    assert {call[:2] for call in calls} == {calls[0][:2]}
    assert [call[2] for call in calls] == ["1", "2", "3"]


def test_the_longest_url_comes_back(port):
    """A request line as long as gunicorn takes by default is redirected to one that is taken too."""
    target = f"/slow?{SLOW}&filler="
    target += "x" * (4094 - len(f"GET {target} HTTP/1.1"))
    assert [answer.status for answer in follow(port, target)][-2:] == [303, 200]


def test_a_url_without_query_gets_one(port, busy):
    """A request without a query is redirected to its path with nothing but our parameters."""
    assert re.fullmatch(r"/fast\?" + OURS, ask(port, "/fast").location)


@pytest.mark.parametrize("client", CLIENTS)
def test_command_line_clients_follow_to_the_result(site, client, tmp_path):
    """curl, and httpie, end at the app's response, and the handler ran once."""
    tag = client.replace(" ", "")
    done = subprocess.run(
        [*CLIENTS[client], f"{site.url}/slow?tag={tag}&{SLOW}"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        env={**os.environ, "HTTPIE_CONFIG_DIR": str(tmp_path)},
    )
    posted = "12345" in CLIENTS[client]
    assert done.stdout == (f"slow POST {tag} 5\n" if posted else f"slow GET {tag} 0\n")
    assert len(site.runs(tag)) == 1


def test_a_body_that_is_posted_on_every_hop_is_dropped(site, tmp_path):
    """`curl -X POST -L` uploads again on each hop of one connection; only the first upload is used."""
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(300_000))
    done = subprocess.run(
        ["curl", "-sS", "-X", "POST", "-L", "--data-binary", f"@{upload}", f"{site.url}/slow?tag=big&{SLOW}"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout == "slow POST big 300000\n"
    assert len(site.runs("big")) == 1


@pytest.mark.parametrize(("method", "length"), [("GET", 0), ("POST", 5)])
def test_python_requests_follows_to_the_result(site, method, length):
    """A `requests` call ends at the app's response, and the handler ran once."""
    tag = f"requests{method}"
    data = b"x" * length or None
    answer = requests.request(method, f"{site.url}/slow?tag={tag}&{SLOW}", data=data, timeout=30)
    assert (answer.status_code, answer.text) == (200, f"slow {method} {tag} {length}\n")
    assert answer.history
    assert {hop.status_code for hop in answer.history} == {303}
    assert len(site.runs(tag)) == 1


def test_urllib_follows_to_the_result(site):
    """A `urllib.request` call ends at the app's response, and the handler ran once."""
    with urllib.request.urlopen(f"{site.url}/slow?tag=urllib&{SLOW}", timeout=30) as answer:
        assert (answer.status, answer.read()) == (200, b"slow GET urllib 0\n")
    assert len(site.runs("urllib")) == 1


def test_a_chain_runs_on_one_kept_alive_connection(site, port):
    """All hops of a chain can use one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        target, seen = f"/slow?tag=alive&{SLOW}", []
        while target:
            connection.request("GET", target)
            sock = connection.sock
            seen.append(answer_of(connection))
            assert connection.sock is sock
            target = seen[-1].location
    finally:
        connection.close()
    assert seen[-1].text == "slow GET alive 0\n"
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("//evil.example/x", "/evil.example/x"),
        ("///evil.example/x", "/evil.example/x"),
        ("/\\evil.example/x", "/evil.example/x"),
        ("http://evil.example/x", "/x"),
    ],
)
def test_a_location_stays_on_this_host(port, no_wait, target, path):
    """However a request's target begins, `Location` is a path that no client reads as another host."""
    answer = raw_request(no_wait.port, get(target)).decode()
    assert re.search(r"\r\nLocation: (\S+)", answer)[1].startswith(f"{path}?{MARK}call=")
    urls = json.loads(answer.partition("\r\n\r\n")[2])
    assert all(url.startswith(f"{path}?{MARK}") for url in urls.values())


def test_a_303_stays_on_this_host(site, port, busy, gate):
    """`//evil.example/x` is redirected to a path here, where the app's own answer can be had."""
    location = ask(port, "//evil.example/x").location
    assert location.startswith(f"/evil.example/x?{MARK}call=")
    gate.touch()
    last = follow(port, location)[-1]
    assert (last.status, last.header("Content-Type")) == (404, "text/html; charset=utf-8")


def test_a_trusted_proxys_prefix_is_put_before_the_path(port):
    """`X-Forwarded-Prefix` of a trusted peer stands at the front of every Location of the chain."""
    headers = {"X-Forwarded-Prefix": "/prefix/"}
    first = ask(port, "/slow?seconds=1.5", headers=headers)
    assert first.location.startswith("/prefix/slow?seconds=1.5&")
    # The proxy takes it off again.
    second = ask(port, first.location.removeprefix("/prefix"), headers=headers)
    assert second.location.startswith("/prefix/slow?seconds=1.5&")
    last = follow(port, second.location.removeprefix("/prefix"))[-1]
    assert last.text == "slow GET  0\n"


def test_a_prefix_cannot_name_another_host(port, no_wait):
    """A prefix that looks like a host stays a path."""
    answer = ask(no_wait.port, "/fast", headers={"X-Forwarded-Prefix": "//evil.example"})
    assert answer.location.startswith("/evil.example/fast?")


def test_an_untrusted_peers_prefix_is_ignored(strict):
    """`X-Forwarded-Prefix` of anybody else changes nothing."""
    first = ask(strict.port, f"/slow?{SLOW}", headers={"X-Forwarded-Prefix": "/prefix"})
    assert first.location.startswith("/slow?")


# -- the result URL


def test_a_result_url_can_be_reloaded_while_it_runs(site, port, strict, gate, seen):
    """Many clients, in two web processes, wait on one result URL: nothing is started twice, all get it."""
    ports = [port, strict.port] * 4
    location = ask(port, f"/numbers?size=3000000&file={gate}&tag=reload").location
    with ThreadPoolExecutor(len(ports)) as threads:
        waited = list(threads.map(lambda port: ask(port, location), ports))
        assert {call_in(answer.location)[::2] for answer in waited} == {(call_in(location)[0], "2")}
        chains = [threads.submit(follow, port, location) for port in ports]
        gate.touch()
        opened = time.monotonic()
        bodies = [chain.result()[-1].body for chain in chains]
        seen("until eight had 3 MB", [time.monotonic() - opened])
    assert len(site.runs("reload")) == 1
    assert set(bodies) == {array("Q", range(375_000)).tobytes()}


def test_a_result_url_answers_as_soon_as_it_can(site, patient, no_wait, tmp_path):
    """Whoever waits on a result URL gets the result when it is there."""
    seconds = 0.0
    with ThreadPoolExecutor(1) as threads:
        for number in range(5):
            gate = tmp_path / str(number)
            location = ask(no_wait.port, f"/gate?file={gate}").location
            answer = threads.submit(ask, patient.port, location)
            record = f"wt:call:{call_in(location)[0]}"
            until(lambda record=record: site.redis.client.hget(record, "inboxes"), what="the waiter")
            gate.touch()
            began = time.monotonic()
            assert answer.result().text == "passed \n"
            seconds += time.monotonic() - began
    assert seconds < 2.5


def test_within_the_grace_a_delivered_result_is_had_again(site, port, seen):
    """A result that was delivered comes again, the same, for a while."""
    location = ready_result(port, f"/slow?tag=again&{SLOW}")
    answers, took = [], []
    for _ in range(3):
        began = time.monotonic()
        answers.append(ask(port, location))
        took.append(time.monotonic() - began)
    seen("a result, first and again", took)
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"slow GET again 0\n")}
    until_delivered(port, location)
    assert len(site.runs("again")) == 1


def test_a_post_to_a_delivered_result_goes_to_the_clean_url(site, port):
    """A form that posts to the address it was shown under reaches the app, already within the grace."""
    location = ready_result(port, f"/slow?tag=form&{SLOW}")
    assert ask(port, location).status == 200
    until_delivered(port, location)
    answer = ask(port, location, "POST", body=b"12345")
    assert (answer.status, answer.reason) == (307, "Temporary Redirect")
    assert answer.location == f"/slow?tag=form&{SLOW}"
    again = requests.post(f"{site.url}{location}", data=b"12345", timeout=30)
    assert again.text == "slow POST form 5\n"
    assert len(site.runs("form")) == 2


def test_a_post_to_a_result_that_was_not_delivered_gets_it(site, port):
    """Before its delivery any method on a result URL gets the result, and runs nothing."""
    location = ready_result(port, f"/slow?tag=methods&{SLOW}", "POST", body=b"1")
    for method in ("OPTIONS", "DELETE"):
        # Each of these is a delivery; only the first comes before one.
        answer = ask(port, location, method)
        assert answer.status in {200, 307}
    assert len(site.runs("methods")) == 1


@pytest.fixture(scope="module")
def delivered(site, strict):
    """The result URL of a call that was delivered, and whose grace is over."""
    location = ready_result(site.web.port, f"/slow?a=1&b=%2F<>&tag=delivered&{SLOW}".replace("<>", "%3C%3E"))
    assert ask(strict.port, location).status == 200
    until(lambda: ask(strict.port, location).status == 410, what="the end of the grace")
    return location


def test_after_the_grace_a_result_is_gone(site, port, delivered, seen):
    """A delivered result is 410 after its grace, with when that was and the address without our part."""
    began = time.monotonic()
    answer = ask(port, delivered)
    seen("the 410", [time.monotonic() - began])
    clean = delivered.partition("&__wsgi")[0]
    assert (answer.status, answer.header("Content-Type")) == (410, "application/problem+json")
    assert answer.json["url"] == clean
    date = parsedate_to_datetime(re.search(r"\w{3}, [^.]* GMT", answer.json["detail"])[0])
    assert abs(date.timestamp() - time.time()) < 60
    assert answer.header("Cache-Control") == "no-store"
    assert len(site.runs("delivered")) == 1


def test_after_the_grace_a_browser_gets_a_page_with_a_link(port, delivered):
    """For a browser the 410 is a page with the date and a link that opens the address anew."""
    answer = ask(port, delivered, headers={"Accept": "text/html,*/*;q=0.8"})
    clean = delivered.partition("&__wsgi")[0].replace("&", "&amp;")
    assert (answer.status, answer.header("Content-Type")) == (410, "text/html; charset=utf-8")
    assert f'<a href="{clean}">' in answer.text
    assert re.search(r"delivered on \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", answer.text)
    assert MARK not in answer.text


def test_after_the_grace_a_post_goes_to_the_clean_url(port, delivered):
    """A POST to a result that is gone is sent on, with its body, to the address without our part."""
    answer = ask(port, delivered, "POST", body=b"12345")
    assert (answer.status, answer.location) == (307, delivered.partition("&__wsgi")[0])


def test_whatever_does_not_fit_is_unknown(site, port, delivered, gate, seen):
    """A wrong token, another path, an unknown or malformed id: the same 404 for all, delivered or not."""
    running = ask(port, f"/gate?file={gate}").location
    wrong = []
    for location in (running, delivered):
        call_id, token, _ = call_in(location)
        path, _, query = location.partition("?")
        other = token[:-1] + ("A" if token[-1] != "A" else "B")
        wrong += [
            location.replace(token, other),
            location.replace(token, token[:-1]),
            location.replace(call_id, call_id[:-1]),
            location.replace(f"{call_id}.{token}", call_id),
            location.replace(f"{call_id}.{token}", ""),
            location.replace("__wsgi_timeout_hop=1", f"__wsgi_timeout_call={call_id}.{token}"),
            location.replace("__wsgi_timeout_hop=1", f"__wsgi_timeout_status={call_id}.{token}"),
            f"/fast?{query}",
            f"{path}/?{query}",
            f"/%{ord(path[1]):x}{path[2:]}?{query}",
            status_url(location).replace(token, other),
            status_url(location).replace(path, "/fast"),
        ]
    wrong.append("/fast?__wsgi_timeout_call=fc-AAAAAAAAAAAAAAAAAAAAAA." + "A" * 32)
    wrong.append("/fast?__wsgi_timeout_call=%00")
    answers, took = set(), []
    for target in wrong:
        began = time.monotonic()
        answer = ask(port, target)
        took.append(time.monotonic() - began)
        answers.add((answer.status, *answer.app_headers, answer.body))
    seen("a 404", took)
    assert len(wrong) == 26
    assert len(answers) == 1
    assert answers.pop()[0] == 404
    assert {ask(port, target, "DELETE").status for target in wrong} == {404}
    assert ask(port, status_url(running)).json["state"] == "running"


def test_head_consumes_nothing(port):
    """HEAD on a result URL shows the headers of the result, which can be had after that."""
    location = ready_result(port, f"/slow?tag=head&{SLOW}")
    head = ask(port, location, "HEAD")
    assert (head.status, head.body, head.header("Content-Length")) == (200, b"", "16")
    assert ask(port, status_url(location)).json["delivered"] is None
    answer = ask(port, location)
    assert (answer.body, answer.app_headers) == (b"slow GET head 0\n", head.app_headers)


def test_a_prefetch_does_not_use_a_result_up(port, seen):
    """A prefetch of a result URL is refused."""
    location = ready_result(port, f"/slow?tag=prefetch&{SLOW}")
    for name, value in (
        ("Sec-Purpose", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender"),
        ("Purpose", "prefetch"),
    ):
        began = time.monotonic()
        answer = ask(port, location, headers={name: value})
        seen("the 503", [time.monotonic() - began])
        assert (answer.status, answer.header("Retry-After")) == (503, "5")
    assert ask(port, status_url(location)).json["delivered"] is None


def test_headers_change_on_result_urls_only(port, patient):
    """On a result URL `Accept-Ranges` is dropped, and a response without `Cache-Control` made private."""
    direct = ask(patient.port, "/file")
    assert (direct.header("Accept-Ranges"), direct.header("Cache-Control")) == ("bytes", None)
    late = ask(port, ready_result(port, f"/file?{SLOW}"))
    assert late.app_headers == [
        *(pair for pair in direct.app_headers if pair[0] != "Accept-Ranges"),
        ("Cache-Control", "private, no-store"),
    ]
    own = ask(port, ready_result(port, f"/file?cache=max-age=60&{SLOW}"))
    assert [value for key, value in own.headers if key == "Cache-Control"] == ["max-age=60"]


@pytest.mark.parametrize("target", ["/breaks", "/raises"])
def test_a_failure_behind_a_redirect_is_the_apps_own(port, plain, seen, target):
    """An exception of the app gets, at the end of a chain too, what gunicorn alone would answer."""
    location = ready_result(port, f"{target}?{SLOW}")
    began = time.monotonic()
    last = ask(port, location)
    seen("the 500 from its result URL", [time.monotonic() - began])
    alone = ask(plain.port, target)
    assert (last.status, last.body) == (alone.status, alone.body) == (500, alone.body)


def test_a_response_that_breaks_breaks_the_connection(port):
    """A response that fails in mid-body never looks complete on a result URL either."""
    for target in ("/breaks?pieces=2", "/breaks?pieces=2&length=1000"):
        answer = raw_request(port, get(ready_result(port, f"{target}&{SLOW}")))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"piece 1\n" in answer
        assert not answer.endswith(b"0\r\n\r\n")


def test_no_log_holds_a_token(site, port):
    """Neither web nor worker processes log a token, not for a handler that raised, not for a bad request."""
    locations = [ready_result(port, f"{target}?{SLOW}") for target in ("/breaks", "/raises", "/slow")]
    locations.append(ready_result(port, f"/breaks?pieces=1&{SLOW}"))
    for location in locations:
        raw_request(port, get(location))
        raw_request(port, get(location, "GET", "Bad Header: x"))
        raw_request(port, f"GET {location} nonsense\r\n\r\n".encode())
        raw_request(port, f"GET {location.replace('=', '%3D')} nonsense\r\n\r\n".encode())
        ask(port, status_url(location))
        ask(port, "/raises", headers={"Referer": f"{site.url}{location}"})
    calls = [call_in(location) for location in locations]
    until(lambda: f"call={calls[0][0]}.-" in site.web.output, what="the error in gunicorn's log")
    assert all(call_id in site.pool.output for call_id, _, _ in calls)
    for _, token, _ in calls:
        assert token not in site.web.output
        assert token not in site.pool.output


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
    assert len(site.runs(f"limit{chunked}")) == 1


def test_a_websocket_is_refused(site, port):
    """An upgrade to a WebSocket gets 501 and runs nothing."""
    answer = ask(port, "/fast?tag=socket", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert answer.status == 501
    assert "WebSocket" in answer.json["detail"]
    assert not site.runs("socket")


def test_a_handler_over_its_timeout_gets_504(site, strict, tmp_path):
    """A handler that runs longer than its timeout ends in 504, and its worker goes on to the next call."""
    target = f"/guarded?file={tmp_path}/never&tag=late"
    last = follow(strict.port, target)[-1]
    assert (last.status, last.header("Content-Type")) == (504, "application/problem+json")
    assert "0.5 s" in last.json["detail"]
    assert len(site.runs("late-finally")) == 1
    pid = int(site.runs("late")[0].split()[1])
    until(lambda: ask(strict.port, "/pid").json["pid"] == pid, what="the next call in that worker")


def test_a_browser_gets_a_page_for_a_504(strict, tmp_path):
    """A failure of a call is a small page for a browser."""
    target = f"/gate?file={tmp_path}/never"
    last = follow(strict.port, target, headers={"Accept": "text/html"})[-1]
    assert (last.status, last.header("Content-Type")) == (504, "text/html; charset=utf-8")
    assert "<title>Gateway Timeout</title>" in last.text
