"""`--python`: an app under an interpreter in which nothing of ours is installed."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from harness import APPS, ROOT, Gunicorn, Pool, ask, environment, follow, raw_request, until
from other_pythons import interpreter

from wsgi_timeout.current import ENVIRON_KEY, RunningCall
from wsgi_timeout_jobs.apps.other_python.app import OtherPythonApp
from wsgi_timeout_jobs.apps.other_python.process import AppProcess

#: What an app may need, the oldest there are first; the others take their turn in the slow tests.
EVERY = ("2.7", "3.6", "3.7", "3.8", "3.9", "3.10", "3.12", "3.13", "3.14")
#: Streams that are ended, each at another moment: one in some hundreds met the wrong one.
ENDS = 500


def served(deploy, version, *options):
    pool = ("--python", interpreter(version), "--processes", "2", *options)
    return deploy("elsewhere:app", pool=pool, wait_seconds=20, unread_timeout=30)


@pytest.fixture(scope="module", params=[pytest.param("2.7", marks=pytest.mark.slow), "3.6"])
def version(request):
    return request.param


@pytest.fixture(scope="module")
def site(deploy, version):
    return served(deploy, version)


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


def began(file):
    return file.exists() and "began" in file.read_text()


def status(port, answer):
    return ask(port, answer.json["status_url"]).json if answer.status == 202 else {}


@pytest.mark.slow
@pytest.mark.parametrize("python", EVERY)
def test_every_python_serves_it(deploy, python):
    """Each interpreter of the machine, from 2.7 on, runs the app, with its bodies and its forks."""
    port = served(deploy, python).web.port
    assert ask(port, "/python").text == f"{python} no"
    body = os.urandom(300_000)
    assert ask(port, "/back", "POST", body=body).body == body
    assert ask(port, "/forks").text == "0 15"


def test_nothing_of_ours_is_there(port, version):
    """The app runs under that interpreter, which does not know wsgi-timeout."""
    assert ask(port, "/python").text == f"{version} no"


def test_multiprocessing_starts_fresh_processes(port, version):
    """Processes that are not forked import the app's modules, and nothing of ours."""
    if version != "2.7":  # which only forks
        assert ask(port, "/fresh-processes").text == "[1, 2, 1, 2]"


@pytest.mark.parametrize("size", [0, 5, 70_000, 3_000_000])
def test_bodies_pass_both_ways(port, size):
    """A request body arrives whole, small or streamed; a response may begin before its end."""
    body = os.urandom(size)
    assert ask(port, "/echo", "POST", body=body).body == body
    assert ask(port, "/back", "POST", body=body).body == body


def test_a_server_of_pep_3333(port):
    """write(), `wsgi.file_wrapper`, refused headers: what an app knows from its server."""
    assert ask(port, "/written").text == "written, then returned"
    assert ask(port, "/a-file").body == (APPS / "elsewhere.py").read_bytes()
    assert ask(port, "/bad-header").text.startswith("refused: header X-Bad")


def test_errors_before_and_after_the_first_byte(site, port):
    """An exception is a 500, or breaks the response off; the worker's log has the app's own traceback."""
    assert ask(port, "/raises").status == 500
    answer = raw_request(port, b"GET /breaks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"some bytes" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    for words in ("before the first byte", "after the first byte"):
        site.pool.wait_for(rf"(?s)Traceback.*elsewhere\.py.*ValueError: {words}")


def test_prints_are_in_the_workers_log(site, port):
    """stdout and `wsgi.errors` of the app are the worker's."""
    assert ask(port, "/prints").text == "ok"
    site.pool.wait_for("printed by the app")
    site.pool.wait_for("written to wsgi.errors")


def test_close_is_called(port, tmp_path):
    """The `close()` of what the app returned is called once."""
    file = tmp_path / "notes"
    assert ask(port, f"/closes?file={file}").text == "body"
    until(lambda: file.exists() and file.read_text())
    assert file.read_text() == "closed\n"


def test_forked_processes_are_the_handlers_own(port):
    """A forked child that leaves its handler answers nothing, and one that is terminated ends."""
    assert ask(port, "/forks").text == "0 15"
    assert ask(port, "/pid").status == 200


def test_progress_is_told(site, tmp_path):
    """`environ["wsgi_timeout.progress"]` shows on the status URL, and on the waiting page."""
    web = site.start_web(gateway="wait_for_response=False")
    try:
        gate = tmp_path / "gate"
        answer = ask(web.port, f"/reports?gate={gate}")
        until(lambda: (status(web.port, answer).get("progress") or {}).get("done") == 3)
        assert status(web.port, answer)["progress"]["message"] == "three of ten\u2026"
        navigation = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        page = ask(web.port, answer.json["result_url"], headers=navigation).text
        assert ("three of ten" in page, 'value="0.3"' in page) == (True, True)
        gate.touch()
        assert follow(web.port, answer.json["result_url"])[-1].text == "done"
    finally:
        web.stop()


def test_a_cancelled_handler_runs_its_finally(site, tmp_path):
    """A cancel raises what `except Exception` does not catch; `finally` runs, the next one is served."""
    web = site.start_web(gateway="wait_for_response=False")
    try:
        file = tmp_path / "notes"
        answer = ask(web.port, f"/sleeps?file={file}")
        until(lambda: began(file))
        assert ask(web.port, answer.json["status_url"], "DELETE").status == 202
        until(lambda: "finally" in file.read_text())
        assert file.read_text() == "began\nfinally\n"
        assert ask(web.port, answer.json["result_url"]).status == 410
    finally:
        web.stop()
    assert ask(site.web.port, "/pid").status == 200


def test_a_stream_whose_reader_leaves_is_closed(port, tmp_path):
    """A writer ahead of its reader waits; when the reader has gone, the app's generator is closed."""
    file = tmp_path / "notes"
    target = f"/endless?file={file}"
    while target:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = client.recv(4000)
            redirect = re.search(rb" 303 (?:.|\s)*location: \S*?(/\S+)", head, re.IGNORECASE)
            assert redirect or head.startswith(b"HTTP/1.1 200"), head
            target = redirect and redirect[1].decode()
    until(lambda: file.exists() and file.read_text(), 40)
    assert file.read_text() == "finally\n"


def test_a_stream_may_be_ended_at_any_moment(version, tmp_path, monkeypatch):
    """Whatever the app's process does when its stream is ended: its generator is closed, once and whole."""
    file = tmp_path / "notes"
    monkeypatch.chdir(APPS)
    process = AppProcess(interpreter(version), "elsewhere:app", 1, reload=False)
    app = OtherPythonApp(process)
    try:
        for number in range(ENDS):
            environ = {"PATH_INFO": "/endless", "QUERY_STRING": f"file={file}", "wsgi.input": io.BytesIO()}
            environ[ENVIRON_KEY] = RunningCall(id=f"fc-{number}", attempt=1, report=print)
            response = app(environ, lambda *_: print)
            chunks = iter(response)
            for _ in range(1 + number % 5):
                next(chunks)
            response.close()
    finally:
        process.stop()
    assert file.read_text() == ENDS * "finally\n"


def test_a_death_of_the_app_is_its_workers(site, port, tmp_path):
    """A process of the app that is killed takes its worker with it: the request runs again elsewhere."""
    file = tmp_path / "notes"
    assert ask(port, f"/dies?file={file}").text == "the second run"
    site.pool.wait_for(r"the app's process \d+ \(.*\) ended by signal 9, and its worker with it")


def test_a_killed_worker_leaves_no_app_behind(site, port, tmp_path):
    """A worker that is killed takes its app's process with it, and the request runs again."""
    file, gate = tmp_path / "notes", tmp_path / "gate"
    app = psutil.Process(int(ask(port, "/pid").text))
    os.kill(app.ppid(), signal.SIGKILL)
    until(lambda: not app.is_running() or app.status() == psutil.STATUS_ZOMBIE)
    gate.touch()
    assert ask(port, f"/waits?file={file}&gate={gate}").text == "waited"


def test_threads_have_a_connection_each(deploy, version, tmp_path):
    """With `--threads 2` two requests run in one process of the app at a time."""
    site = served(deploy, version, "--threads", "2", "--processes", "1")
    file, gate = tmp_path / "notes", tmp_path / "gate"
    web = site.start_web(gateway="wait_for_response=False")
    try:
        answers = [ask(web.port, f"/waits?file={file}&gate={gate}") for _ in range(2)]
        until(lambda: began(file) and file.read_text().count("began") == 2)
        gate.touch()
        assert [follow(web.port, each.json["result_url"])[-1].text for each in answers] == ["waited"] * 2
    finally:
        web.stop()


def test_a_stop_lets_a_call_finish(deploy, version, tmp_path):
    """SIGTERM to the pool: what runs is answered, and nothing of the app is left."""
    site = served(deploy, version)
    file, gate = tmp_path / "notes", tmp_path / "gate"
    web = site.start_web(gateway="wait_for_response=False")
    try:
        answer = ask(web.port, f"/waits?file={file}&gate={gate}")
        until(lambda: began(file))
        family = site.pool.descendants()
        site.pool.popen.send_signal(signal.SIGTERM)
        gate.touch()
        assert site.pool.popen.wait(20) == 0
        assert follow(web.port, answer.json["result_url"])[-1].text == "waited"
        assert not psutil.wait_procs(family, 10)[1]
    finally:
        web.stop()


def test_an_edit_is_seen(deploy, version, redis_server, tmp_path):
    """With `--reload` an edit ends the app's process; a broken one is waited out."""
    source = tmp_path / "edited.py"
    text = "def app(e, s):\n    s('200 OK', [])\n    return [b'%s']\n"
    source.write_text(text % "one")
    env = {**environment(wait_seconds=20, worker_wait=20), "PYTHONDONTWRITEBYTECODE": "1"}
    options = ("--python", interpreter(version), "--reload", "--processes", "1")
    name = f"edited-{version.replace('.', '-')}"
    pool = Pool("edited:app", name, redis_server.url, *options, env=env, cwd=tmp_path)
    web = Gunicorn(
        f"wsgi_timeout:gateway('edited:app', name={name!r})", redis_server.url, env=env, cwd=tmp_path
    )
    try:
        assert ask(web.port, "/").text == "one"
        source.write_text("broken = \n")
        pool.wait_for("importing 'edited:app' failed", 20)
        source.write_text(text % "three")
        until(lambda: ask(web.port, "/").text == "three", 40)
    finally:
        web.stop()
        pool.stop()


def test_what_is_wrong_is_said(site, version):
    """No interpreter, no such app: one line that names it, and exit code 3 or 2."""
    for python, target, words in (
        ("/no/such/python", "elsewhere:app", "--python '/no/such/python' does not start: No such file"),
        (interpreter(version), "nowhere:app", "no module named 'nowhere'"),
        (interpreter(version), "elsewhere:nothing", "has no attribute 'nothing'"),
    ):
        pool = Pool(target, "wrong", site.redis.url, "--python", python, env=site.env, cwd=APPS, wait=False)
        assert pool.popen.wait(20) != 0
        assert words in pool.output, pool.output
        assert "Traceback" not in pool.output
        pool.stop()


WRAPPED = """
import os
from flask import Flask, Response
from wsgi_timeout import RequestTimeouts, Stub

app = Flask(__name__)
RequestTimeouts(app, name="wrapped")
stub = Stub("wrapped")


class Outside:
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        environ["HTTP_X_OUTSIDE"] = environ.get("HTTP_X_OUTSIDE", "") + f" {os.getpid()}"
        return self.inner(environ, start_response)


app.wsgi_app = Outside(app.wsgi_app)


@app.route("/")
def index():
    from flask import request

    return f"{request.headers['X-Outside']} {os.getpid()} {os.getppid()}"
"""


def test_an_app_that_wraps_itself_is_entered_at_its_place(redis_server, tmp_path):
    """`RequestTimeouts` in an app whose Python has it: middleware outside runs once, in the web process."""
    (tmp_path / "wrapped.py").write_text(WRAPPED)
    env = environment(wait_seconds=20, worker_wait=20)
    pool = Pool("wrapped:app", None, redis_server.url, "--python", sys.executable, env=env, cwd=tmp_path)
    web = Gunicorn("wrapped:app", redis_server.url, env=env, cwd=tmp_path)
    try:
        outside, handler, worker = (int(word) for word in ask(web.port, "/").text.split())
        assert (outside in {each.pid for each in web.workers()}, handler != worker) == (True, True)
        assert worker in {each.pid for each in pool.workers()}
    finally:
        web.stop()
        pool.stop()
    stub = Pool(
        "wrapped:stub", None, redis_server.url, "--python", sys.executable, env=env, cwd=tmp_path, wait=False
    )
    assert stub.popen.wait(60) != 0
    assert "is a Stub of wsgi-timeout, which must run under the Python that has it" in stub.output
    stub.stop()


def test_the_host_file_needs_no_newer_python():
    """vermin finds nothing in what runs under --python that Python 3.6 does not have."""
    files = sorted((ROOT / "jobs/wsgi_timeout_jobs/apps/other_python").glob("app_host*.py"))
    command = [
        Path(sys.executable).with_name("vermin"),
        "--quiet",
        "--no-tips",
        "--violations",
        "--target=3.6-",
        *files,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert len(files) == 4
    assert done.returncode == 0, done.stdout + done.stderr
