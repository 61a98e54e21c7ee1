"""--gunicorn-config: what a gunicorn configuration sets up for its workers, in ours."""

import json
import sys

import pytest
from harness import Pool, Serve, ask, environment

CONFIG = """
import os

bind, workers = "0.0.0.0:80", 4
raw_env = ["GREETING=good day"]
chdir = "inner"
pythonpath = "../libs"
umask = 0o027

def note(what, worker):
    with open(os.environ["NOTES"], "a") as notes:
        print(what, worker.pid, worker.age, os.getpid(), worker.wsgi is not None, worker.nr, file=notes)

def post_fork(server, worker):
    server.log.info("%s of %s at %s", worker, server.num_workers, worker.cfg.keepalive)
    note("post_fork", worker)

def post_worker_init(worker):
    worker.wsgi.ready = "initialised"
    assert worker.app.wsgi() is worker.wsgi and worker.ppid == os.getppid()
    note("post_worker_init", worker)

def worker_exit(server, worker):
    note("worker_exit", worker)

def child_exit(server, worker):
    note("child_exit", worker)

def when_ready(server):
    raise AssertionError("not honoured")
"""
APP = """
import json, os, helping

def app(environ, start_response):
    open("made", "w").close()
    told = [os.getcwd(), os.environ["GREETING"], oct(os.stat("made").st_mode), app.ready]
    start_response("200 OK", [])
    return [json.dumps(told).encode()]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text(CONFIG)
    for name, text in {"inner/hooked.py": APP, "libs/helping.py": ""}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return tmp_path


def test_hooks_and_settings_of_a_gunicorn_file(folder):
    """Workers have the file's environment, folder, path and umask; its hooks run where gunicorn runs them."""
    notes = folder / "notes"
    options = ("--gunicorn-config", "gunicorn.conf.py", "--processes", "1")
    env = {"NOTES": str(notes)}
    served = Serve("hooked:app", *options, folder=folder, state=folder / "state", env=env)
    try:
        assert json.loads(ask(served.port, "/").text) == [
            str(folder / "inner"),
            "good day",
            oct(0o100640),
            "initialised",
        ]
        honoured = "raw_env, chdir, pythonpath, umask, post_fork, post_worker_init, worker_exit, child_exit"
        assert f"for workers: {honoured}; not honoured: bind, when_ready, workers\n" in served.output
        assert "<Worker " in served.output
        assert "is not read here" not in served.output
    finally:
        served.stop()
    lines = [line.split() for line in notes.read_text().splitlines()]
    pid, pool = lines[0][1], lines[-1][3]
    assert pid != pool
    assert lines == [
        ["post_fork", pid, "1", pid, "False", "0"],
        ["post_worker_init", pid, "1", pid, "True", "0"],
        ["worker_exit", pid, "1", pid, "True", "1"],
        ["child_exit", pid, "1", pool, "False", "1"],
    ]


def test_what_a_file_cannot_do_is_said(folder, redis_server):
    """Under --python hooks are named as not honoured; a missing file, and a wrong value, are refused."""
    env = environment()
    options = ("--gunicorn-config", str(folder / "gunicorn.conf.py"), "--python", sys.executable)
    env["PYTHONPATH"] = str(folder / "libs")
    pool = Pool("hooked:app", None, redis_server.url, *options, env=env, cwd=folder, wait=False)
    try:
        pool.wait_for(r"hooked:app.*has no attribute|no module named|takes calls")
        assert "for workers: raw_env, chdir, pythonpath, umask; not honoured: bind, child_exit" in pool.output
        assert "hooks do not reach an app under --python" in pool.output
    finally:
        pool.stop()
    for file, text, said in (
        ("other.py", None, "there is no such file"),
        ("wrong.py", "umask = 'x'", "umask = 'x'"),
        ("half.py", "raw_env = ['HALF']", r"raw_env = \['HALF'\]: write KEY=VALUE"),
        ("raises.py", "import nowhere", "'raises.py' raised ModuleNotFoundError, see above"),
    ):
        if text:
            (folder / file).write_text(text)
        options = ("--gunicorn-config", file)
        pool = Pool("hooked:app", None, redis_server.url, *options, env=env, cwd=folder, wait=False)
        pool.wait_for(said)
        assert pool.popen.wait(20) == 2
        pool.stop()
