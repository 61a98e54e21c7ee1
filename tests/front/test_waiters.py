"""Many requests that wait in one web process, and what they must not cost the others."""

import http.client
import re
import signal
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from crowd import Crowd
from harness import APPS, Gunicorn, answer_of, ask, calls_accepted, follow, until

from wsgi_timeout.front.places import HOP_RESERVE

MAX_WAITING = 200
#: Seconds that the kernel, not we, may need on a busy machine.
SLACK = 5.0

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        pool=("--processes", "1"), gateway="except_=['/fast*']", wait_seconds=50, max_waiting=MAX_WAITING
    )


@pytest.fixture(scope="module")
def web(site):
    """A web process whose connections to Redis can be told by their name."""
    app = f"wsgi_timeout:gateway({site.target!r}, name={site.name!r}, except_=['/fast*'])"
    url = f"{site.redis.url}?client_name={site.name}-web"
    server = Gunicorn(app, url, env=site.env, cwd=APPS)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def start_call(site):
    """Return a function that starts a call which never ends by itself, and returns its two URLs."""
    web = site.start_web(gateway="wait_for_response=False")
    yield lambda: ask(web.port, "/guarded?file=/nonexistent").json
    web.stop()


@pytest.fixture
def call(site, start_call):
    """The two URLs of such a call, which ends with the test."""
    call = start_call()
    yield call
    ask(site.web.port, call["status_url"], "DELETE")


@pytest.fixture(scope="module")
def module_gate(tmp_path_factory):
    path = tmp_path_factory.mktemp("waiters") / "gate"
    yield path
    path.touch()


@pytest.fixture(scope="module")
def crowd(site, web, module_gate):
    """As many waiting requests as one process takes."""
    crowd = Crowd(site, web.port, module_gate, MAX_WAITING)
    yield crowd
    crowd.close()


def median_ms(action):
    """Return the median duration of 20 runs; the best of 3 of these, so that a busy machine is forgiven."""

    def once():
        began = time.perf_counter()
        action()
        return (time.perf_counter() - began) * 1000

    return min(statistics.median(once() for _ in range(20)) for _ in range(3))


def connections(site):
    names = [client["name"] for client in site.redis.client.client_list()]
    return names.count(f"{site.name}-web")


def test_waiters_cost_no_redis_connection(site, crowd):
    """A web process in which 200 requests wait holds four connections to Redis at most."""
    assert 1 < connections(site) <= 4
    assert not crowd.answered()


def test_other_routes_are_answered_while_many_wait(web, crowd, call):
    """A route that stays in the web process, and a status URL, answer within 100 ms while 200 wait."""
    assert ask(web.port, "/fast").text == "fast \n"
    assert ask(web.port, call["status_url"]).json["state"] in {"queued", "running"}
    for target in ("/fast", call["status_url"]):
        assert median_ms(lambda target=target: ask(web.port, target)) < 100
    assert not crowd.answered()


def test_one_more_is_refused(site, web, crowd):
    """A request over `max_waiting` gets 503 with `Retry-After` at once, and is not accepted."""
    count = calls_accepted(site.redis.client, site.name)
    answer = ask(web.port, "/slow")
    assert (answer.status, answer.header("Retry-After")) == (503, "5")
    assert "too many requests wait" in answer.json["detail"]
    assert calls_accepted(site.redis.client, site.name) == count


def test_a_hop_of_an_accepted_call_is_not_refused(web, crowd, call):
    """A result URL finds a place, also where new requests do not."""
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask, web.port, call["result_url"])
        assert ask(web.port, call["status_url"], "DELETE").status == 202
        assert waiting.result().status == 410


def test_a_client_that_goes_frees_its_place(web, crowd, seen):
    """The place of a client that closed its connection is free within a second."""
    assert ask(web.port, "/slow").status == 503
    gone = web.output.count(" 499 ")
    crowd.clients.pop().close()
    left = time.monotonic()
    until(lambda: web.output.count(" 499 ") > gone, 1 + SLACK, "the end of that request")
    seen("until its place was free", [time.monotonic() - left])
    crowd.add()
    assert ask(web.port, "/slow").status == 503


def test_all_get_their_answers_in_the_end(site, crowd, module_gate, seen):
    """When the handlers end, each of 200 waiters gets its own answer, without a redirect."""
    module_gate.touch()
    answers, seconds = crowd.answers()
    seen("200 answers, from their handlers' end", [seconds])
    assert len(answers) == MAX_WAITING
    assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    assert {answer.rpartition(b"\r\n\r\n")[2] for answer in answers} == {b"passed \n"}
    assert connections(site) <= 4


@pytest.fixture
def accepted(site, gate):
    """Return a function that starts so many calls which wait for the gate, and returns their result URLs."""
    web = site.start_web(gateway="wait_for_response=False")
    yield lambda count: [ask(web.port, f"/gate?file={gate}").json["result_url"] for _ in range(count)]
    web.stop()


@pytest.mark.slow
def test_a_deploy_may_bring_more_result_urls_than_may_wait(site, accepted, gate, seen):
    """300 result URLs at a process of 200 places end with their results, and beside them a 503 is fast."""
    web = site.start_web(gateway="except_=['/fast*']")
    clients = []
    try:
        for url in accepted(MAX_WAITING * 3 // 2):
            clients.append(socket.create_connection(("127.0.0.1", web.port), timeout=50))
            clients[-1].sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        full = until(lambda: [a for a in [ask(web.port, "/slow?seconds=0")] if a.status == 503], 20)
        assert "too many requests wait" in full[0].json["detail"]
        assert median_ms(lambda: ask(web.port, "/fast")) < 100
        gate.touch()
        began = time.monotonic()
        answers = [b"".join(iter(lambda client=client: client.recv(65536), b"")) for client in clients]
        seen("300 results", [time.monotonic() - began])
    finally:
        for client in clients:
            client.close()
        web.stop()
    assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    assert {answer.rpartition(b"\r\n\r\n")[2] for answer in answers} == {b"passed \n"}


@pytest.mark.slow
def test_a_result_url_that_finds_no_place_comes_again(site, accepted, gate):
    """Result URLs beyond all places are redirected to themselves after the wait, until there is one."""
    web = site.start_web(gateway="max_waiting=1, wait_seconds=3")
    urls = accepted(1 + 1 + HOP_RESERVE + 4)
    try:
        with ThreadPoolExecutor(len(urls)) as threads:
            began = time.monotonic()
            chains = [threads.submit(follow, web.port, url) for url in urls]
            until(lambda: web.output.count(" 303 ") >= len(urls), 30, what="the redirects")
            assert time.monotonic() - began > 1
            gate.touch()
            answers = [chain.result() for chain in chains]
    finally:
        web.stop()
    assert {answer.status for chain in answers for answer in chain[:-1]} == {303}
    assert {chain[-1].text for chain in answers} == {"passed \n"}
    assert max(len(chain) for chain in answers) <= 6


@pytest.mark.slow
def test_result_urls_leave_threads_free(site, accepted, gate):
    """Result URLs never take all threads of a server that has few: another route is answered too."""
    web = site.start_web("--threads", "20", gateway="max_waiting=6, wait_seconds=3, except_=['/fast*']")
    urls = accepted(22)
    try:
        with ThreadPoolExecutor(len(urls)) as threads:
            chains = [threads.submit(follow, web.port, url) for url in urls]
            until(lambda: web.output.count(" 303 ") >= len(urls), 30, what="the redirects")
            assert ask(web.port, "/fast", timeout=15).text == "fast \n"
            gate.touch()
            answers = [chain.result() for chain in chains]
    finally:
        gate.touch()
        web.stop()
    assert {chain[-1].text for chain in answers} == {"passed \n"}


def test_a_stop_redirects_every_waiter(site, web, gate, seen):
    """On SIGTERM each waiter gets its 303 within a second, and finds its result in another process."""
    stopping = site.start_web()
    try:
        crowd = Crowd(site, stopping.port, gate, 100)
        stopping.popen.send_signal(signal.SIGTERM)
        answers, seconds = crowd.answers()
        crowd.close()
    finally:
        stopping.stop()
    assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 303 See Other"}
    seen("until 100 were redirected", [seconds])
    assert seconds < 1 + SLACK
    locations = {re.search(r"\r\nLocation: (\S+)", answer.decode())[1] for answer in answers}
    assert len(locations) == 100
    gate.touch()
    assert {follow(web.port, location)[-1].text for location in locations} == {"passed \n"}


@pytest.mark.parametrize("waited_before", [True, False])
def test_a_stop_redirects_a_hop_on_a_kept_connection(site, call, waited_before):
    """A result URL that comes in on a kept-alive connection during a stop gets its 303 as well."""
    stopping = site.start_web(gateway="except_=['/fast*']")
    connection = http.client.HTTPConnection("127.0.0.1", stopping.port, timeout=30)
    try:
        # Without a call before it, the process begins to listen in the middle of its stop.
        target = call["status_url"] if waited_before else "/fast"
        connection.request("GET", target)
        assert answer_of(connection).status == 200
        sock = connection.sock
        stopping.popen.send_signal(signal.SIGTERM)
        until(lambda: "Handling signal: term" in stopping.output, what="the stop")
        began = time.monotonic()
        connection.request("GET", call["result_url"])
        assert connection.sock is sock
        assert answer_of(connection).status == 303
        assert time.monotonic() - began < 1 + SLACK
    finally:
        connection.close()
        stopping.stop()
