"""ASGI apps in workers: what they are told, how their responses stream, and how they end."""

import ast
import hashlib
import http.client
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from harness import APPS, Pool, ask, environment, follow, until

#: Bytes of one request body that lie in Redis at a time: large uploads are larger.
BUFFER = 1024 * 1024


@pytest.fixture(scope="module")
def site(deploy):
    options = ("--processes", "2")
    return deploy("asgi_apps:stub", pool=options, worker_wait=10, wait_seconds=20, buffer=BUFFER)


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


@pytest.fixture(scope="module")
def hasty(site):
    """A web process that answers 202."""
    web = site.start_web(gateway="wait_for_response=False")
    yield web
    web.stop()


@pytest.fixture(scope="module")
def threaded(deploy):
    """One worker process with four threads."""
    return deploy(
        "asgi_apps:stub", pool=("--processes", "1", "--threads", "4"), worker_wait=10, wait_seconds=20
    )


@pytest.fixture
def tag(gate):
    """Return a word that no other test uses."""
    return gate.parent.name


@pytest.fixture
def threads(gate):
    """Return a function that runs another in a thread; the gate opens before they are waited for."""
    with ThreadPoolExecutor(8) as executor:
        yield executor.submit
        gate.touch()


def pids(site):
    return {process.pid for process in site.pool.workers()}


class TestRequests:
    def test_the_scope_tells_the_request(self, port):
        """A bare ASGI callable gets the request as ASGI 3.0 has it, raw and decoded."""
        headers = {"X-Word": "h\u00e9", "Host": "example.com:81"}
        answer = ask(port, "/bare/scoped/caf%C3%A9%2Fx?q=%20a&b", headers=headers)
        told = {key: value for key, value in answer.json.items() if key != "extensions"}
        scope = {key: ast.literal_eval(value) for key, value in told.items()}
        assert scope["type"] == "http"
        assert (scope["method"], scope["http_version"], scope["scheme"]) == ("GET", "1.1", "http")
        assert scope["path"] == "/bare/scoped/caf\u00e9/x"
        assert scope["raw_path"] == b"/bare/scoped/caf%C3%A9%2Fx"
        assert (scope["root_path"], scope["query_string"]) == ("/bare", b"q=%20a&b")
        assert (b"x-word", b"h\xe9") in scope["headers"]
        assert (b"host", b"example.com:81") in scope["headers"]
        assert scope["client"][0] == "127.0.0.1"
        assert scope["server"] == ("127.0.0.1", port)
        assert scope["state"] == {}

    def test_the_response_is_the_apps(self, port):
        """Status and headers of the app come as it sent them, repeated ones too."""
        answer = ask(port, "/bare/scoped")
        assert answer.status == 203
        assert [
            (key.lower(), value) for key, value in answer.headers if key.lower() in {"x-one", "set-cookie"}
        ] == [
            ("x-one", "1"),
            ("x-one", "2"),
            ("set-cookie", "a=1"),
        ]

    def test_after_the_request_comes_the_disconnect(self, site, port):
        """An app that asks for more after the body is told `http.disconnect` when its response is out."""
        assert (
            ask(port, "/bare/told-twice").text
            == "[{'type': 'http.request', 'body': b'', 'more_body': False}]"
        )
        until(lambda: site.runs("told-twice"), what="the second message")
        assert site.runs("told-twice")[0].split()[1] == "http.disconnect"

    def test_fastapi_below_a_label(self, port):
        """A FastAPI app validates, documents itself and knows its address below its label."""
        assert ask(port, "/fast/items/3?wanted=yes").json == {"number": 3, "wanted": "yes"}
        assert ask(port, "/fast/items/three").status == 422
        assert ask(port, "/fast/nothing").json == {"detail": "Not Found"}
        assert ask(port, "/fast/openapi.json").json["servers"] == [{"url": "/fast"}]
        assert ask(port, "/fast/state").json["url"] == f"http://127.0.0.1:{port}/fast/state"
        head = ask(port, "/fast/docs", "HEAD")
        assert (head.status, head.body) == (200, b"")

    def test_progress_is_reported_from_anywhere(self, hasty):
        """An endpoint reports progress from FastAPI's thread pool as from anywhere."""
        answer = ask(hasty.port, "/fast/items/3").json
        status = until(
            lambda: (found := ask(hasty.port, answer["status_url"]).json)["state"] == "ended" and found,
            what="the end",
        )
        assert status["progress"] == {"done": 3, "total": 10, "message": "an item"}
        assert follow(hasty.port, answer["result_url"])[-1].json["number"] == 3

    def test_websockets_are_not_offered(self, port):
        """A WebSocket is answered 501, with what to do."""
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        answer = ask(port, "/fast/state", headers=headers)
        assert (answer.status, "WebSocket" in answer.json["detail"]) == (501, True)


class TestBodies:
    def test_a_streamed_response_comes_as_it_is_made(self, port, gate):
        """Each chunk of a streaming response reaches the client before the next one is made."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", f"/fast/stream?file={gate}&pieces=4")
        response = connection.getresponse()
        assert response.status == 200
        for number in range(4):
            assert response.readline() == b"%d\n" % number
            gate.with_name(f"{gate.name}.{number + 1}").touch()
        assert response.read() == b""
        connection.close()

    @pytest.mark.parametrize("size", [0, 10, 300_000, 5 * BUFFER])
    def test_an_upload_arrives_whole(self, port, size):
        """An upload of any size reaches the app whole, also one that is larger than the buffer."""
        data = os.urandom(size)
        answer = ask(port, "/fast/upload", "POST", body=data)
        assert (answer.json["length"], answer.json["sha256"]) == (size, hashlib.sha256(data).hexdigest())

    @pytest.mark.parametrize("pieces", [1, 30])
    def test_a_chunked_upload_arrives_whole(self, port, pieces):
        """A chunked upload, without a length, reaches the app whole."""
        data = [os.urandom(100_000) for _ in range(pieces)]
        answer = requests.post(f"http://127.0.0.1:{port}/fast/upload", data=iter(data), timeout=30).json()
        assert (answer["length"], answer["sha256"]) == (
            pieces * 100_000,
            hashlib.sha256(b"".join(data)).hexdigest(),
        )

    def test_curl_uploads_a_form(self, port, tmp_path):
        """A form with a file, as curl sends it, reaches FastAPI's parser."""
        file = tmp_path / "a.bin"
        file.write_bytes(b"x" * 200_000)
        url = f"http://127.0.0.1:{port}/fast/form"
        command = ["curl", "-sS", "-F", "title=a title", "-F", f"file=@{file}", url]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        assert answer == '{"title":"a title","name":"a.bin","length":200000}'

    @pytest.mark.parametrize("size", [1000, 3 * BUFFER])
    def test_a_body_comes_back_as_it_is_read(self, port, size):
        """An app may send while it receives, more than lies in Redis at a time."""
        data = os.urandom(size)
        assert ask(port, "/bare/echo", "POST", body=data).body == data


class TestFailures:
    @pytest.mark.parametrize(
        "path", ["returns-early", "raises-before", "cancels-itself", "raises-between", "starts-twice"]
    )
    def test_a_failure_before_the_first_byte_is_a_500(self, site, port, path):
        """An app that fails before its response has begun is a 500, and its worker goes on at once."""
        before = until(lambda: len(found := pids(site)) == 2 and found, what="both workers")
        # One more than there are workers: a worker that did not go on would not answer it.
        for _ in range(3):
            assert ask(port, f"/bare/{path}", timeout=8).status == 500
        assert pids(site) == before

    @pytest.mark.parametrize("path", ["raises-within", "ends-within"])
    def test_a_failure_within_the_response_breaks_it_off(self, port, path):
        """An app that fails within its response breaks the connection off: it never looks complete."""
        for _ in range(3):
            with pytest.raises(http.client.IncompleteRead) as raised:
                ask(port, f"/bare/{path}", timeout=8)
            assert raised.value.partial == b"first,"

    def test_a_failure_after_the_response_changes_nothing(self, site, port):
        """An app that raises after its response has given it, and the error stands in the log."""
        for _ in range(3):
            assert ask(port, "/bare/raises-after", timeout=8).text == "whole"
        until(lambda: "the ASGI app raised after its response" in site.pool.output, what="the log line")
        assert "ValueError: after the response" in site.pool.output

    def test_what_the_app_lacks_is_told(self, site, port):
        """The worker's log tells what an app did not do."""
        ask(port, "/bare/returns-early")
        assert "RuntimeError: the ASGI app returned without a response" in site.pool.output


class TestSideBySide:
    def test_several_requests_run_in_one_process(self, threaded, gate, tag, threads):
        """With `--threads 4` four requests run side by side in one process, on one event loop."""
        target = f"/fast/together?file={gate}&tag={tag}"
        asked = [threads(ask, threaded.web.port, target) for _ in range(4)]
        until(lambda: len(threaded.runs(tag)) == 4, what="four at a time")
        gate.touch()
        assert {future.result(20).json["pid"] for future in asked} == pids(threaded)

    def test_background_tasks_run_after_the_response(self, site, port, gate, tag):
        """A response is there before the app's background tasks have run, and they run."""
        answer = ask(port, f"/fast/background?file={gate}&tag={tag}")
        assert answer.json == {"answered": tag}
        assert site.runs(tag) == []
        gate.touch()
        until(lambda: site.runs(tag), what="the background task")

    def test_a_cancelled_call_is_cancelled_in_the_app(self, site, hasty, gate, tag):
        """A cancelled call raises `CancelledError` in the app, whose `finally` runs."""
        before = pids(site)
        urls = ask(hasty.port, f"/bare/held?file={gate}&tag={tag}").json
        until(lambda: site.runs(tag), what="the app at work")
        assert ask(hasty.port, urls["status_url"], "DELETE").status == 202
        until(lambda: site.runs(f"{tag}-finally"), what="its finally")
        assert site.runs(f"{tag}-cancelled")
        assert ask(hasty.port, urls["result_url"]).status == 410
        assert ask(hasty.port, "/fast/state").status == 202
        assert pids(site) != before

    def test_a_cancelled_stream_is_cancelled_in_the_app(self, site, hasty, gate):
        """A response that is cancelled midway ends in the app, too."""
        urls = ask(hasty.port, f"/fast/stream?file={gate}&pieces=2").json
        ended = len(site.runs("stream-finally"))
        until(lambda: len(site.runs("stream-begun")) > ended, what="the app at work")
        assert ask(hasty.port, urls["status_url"], "DELETE").status == 202
        until(lambda: len(site.runs("stream-finally")) > ended, what="its finally")

    def test_a_background_task_ends_at_the_timeout(self, site, gate, tag):
        """A background task counts to its call: it is cancelled at the call's timeout."""
        web = site.start_web(gateway="timeout=0.5")
        try:
            assert ask(web.port, f"/fast/lingers?file={gate}&tag={tag}").json == {"answered": tag}
            until(lambda: site.runs(f"{tag}-finally"), what="its finally")
        finally:
            web.stop()

    def test_a_cancelled_call_among_others(self, threaded, gate, tag, threads):
        """Among threads a cancelled call is cancelled in the app, too, when its neighbours have ended."""
        web = threaded.start_web(gateway="wait_for_response=False")
        try:
            urls = ask(web.port, f"/fast/together?file={gate}&tag={tag}").json
            neighbour = threads(ask, threaded.web.port, f"/fast/together?file={gate}.2&tag={tag}-2")
            until(lambda: threaded.runs(tag) and threaded.runs(f"{tag}-2"), what="both at work")
            (before,) = pids(threaded)
            assert ask(web.port, urls["status_url"], "DELETE").status == 202
            assert ask(web.port, urls["result_url"]).status == 410
            gate.with_name(f"{gate.name}.2").touch()
            assert neighbour.result(20).json == {"pid": before}
            until(lambda: threaded.runs(f"{tag}-finally"), what="its finally")
            assert not gate.exists()
        finally:
            web.stop()


class TestLifespan:
    def test_each_process_starts_and_ends_the_app_once(self, site, tmp_path):
        """Startup runs once in each process before its first request, shutdown at the pool's SIGTERM."""
        notes = tmp_path / "notes"
        notes.touch()
        env = {**site.env, "RUNS_FILE": str(notes)}
        name = f"{site.name}-life"
        pool = Pool("asgi_apps:stub", name, site.redis.url, "--processes", "2", env=env, cwd=APPS)
        until(lambda: site.redis.client.hlen(f"wt:leases:{name}") == 2, what="both processes")
        mine = sorted(f"{process.pid}" for process in pool.workers())
        assert sorted(notes.read_text().split()) == sorted([*mine, "startup", "startup"])
        assert pool.stop(signal.SIGTERM) == 0
        ended = [line.split()[1] for line in notes.read_text().splitlines() if line.startswith("shutdown")]
        assert sorted(ended) == mine

    def test_state_of_the_lifespan_is_each_requests(self, site, port):
        """What the lifespan yields is in the state of each request of its process."""
        for _ in range(4):
            answer = ask(port, "/fast/state").json
            assert answer["started"] == answer["pid"]
            assert answer["pid"] in pids(site)

    def test_a_failed_startup_is_told(self, redis_server):
        """An app whose startup fails ends the pool with a message that holds the app's own."""
        pool = Pool("asgi_apps:failing", "failing", redis_server.url, env=environment(), cwd=APPS, wait=False)
        assert pool.popen.wait(20) == 1
        complaint = pool.output
        pool.stop()
        assert "wsgi-timeout: the ASGI app's startup failed: Traceback" in complaint
        assert "RuntimeError: no database here" in complaint

    def test_a_failed_shutdown_is_logged(self, redis_server):
        """An app whose shutdown fails ends all the same, and its error stands in the log."""
        pool = Pool("asgi_apps:shy", "shy", redis_server.url, env=environment(), cwd=APPS)
        assert pool.stop(signal.SIGTERM) == 0
        assert "the ASGI app's shutdown failed: Traceback" in pool.output
        assert "RuntimeError: the door is stuck" in pool.output
