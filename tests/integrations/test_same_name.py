"""Two apps that are both `app:app` share one Redis by chance."""

import pytest
from harness import FAST, Gunicorn, Pool, ask, environment, until

APP = """
from flask import Flask
app = Flask(__name__)

@app.get("/")
def page():
    return "this is {name}"
"""


@pytest.fixture
def start():
    """Return a function that keeps a process to be stopped with the test."""
    started = []

    def start(process):
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        process.stop()


@pytest.fixture
def folders(tmp_path):
    """Return the folders of two apps."""
    found = []
    for name in ("shop", "bank"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "app.py").write_text(APP.replace("{name}", name))
        found.append(folder)
    return found


def test_two_apps_of_one_generic_name_never_meet(redis_server, start, folders):
    """The second one's workers and web process are refused, and told to take a name; then both are served."""
    shop, bank = folders
    env = {**environment(**FAST), "PYTHONPATH": ""}
    gateway = 'wsgi_timeout:gateway("app:app")'
    start(Pool("app:app", None, redis_server.url, "--processes", "1", env=env, cwd=shop))
    first, second = (
        start(Gunicorn(gateway, redis_server.url, env=env, cwd=folder)) for folder in (shop, bank)
    )
    other = start(Pool("app:app", None, redis_server.url, "--processes", "1", env=env, cwd=bank, wait=False))
    other.wait_for("many apps are called 'app'.*--name.*this worker is refused", 40)
    assert ask(first.port, "/").text == "this is shop"
    assert ask(second.port, "/").status == 503
    second.wait_for("requests are refused: .*many apps are called 'app'")
    named = {**env, "WSGI_TIMEOUT_NAME": "the-bank"}
    start(Pool("app:app", None, redis_server.url, "--processes", "1", env=named, cwd=bank))
    third = start(Gunicorn(gateway, redis_server.url, env=named, cwd=bank))
    assert ask(third.port, "/").text == "this is bank"
    assert until(lambda: ask(first.port, "/").text) == "this is shop"
