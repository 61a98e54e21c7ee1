"""Two apps that are both `app:app` share one Redis by chance."""

import json
from dataclasses import dataclass

import pytest
from harness import FAST, Gunicorn, Pool, ask, environment, until

from wsgi_timeout import identity

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


def test_one_app_of_several_versions_is_served(redis_server, start, folders):
    """A changed app beside its older worker passes; another environment, or no version of it, does not.

    Two containers have one folder: what lies there, and the name of their environment, tells them apart.
    """
    shop, _ = folders
    source = (shop / "app.py").read_text() + "".join(f"price_of_thing_{n} = {n}\n" for n in range(12))
    (shop / "app.py").write_text(source)
    env = {**environment(**FAST, name="wsgi"), "PYTHONPATH": "", "APP_ENV": "production"}
    start(Pool("app:app", None, redis_server.url, "--processes", "1", env=env, cwd=shop))

    def web(source, **changes):
        (shop / "app.py").write_text(source)
        gateway = 'wsgi_timeout:gateway("app:app")'
        return start(Gunicorn(gateway, redis_server.url, env={**env, **changes}, cwd=shop))

    newer = source.replace("= 7", "= 8")
    changed = web(newer)
    assert ask(changed.port, "/").text == "this is shop"
    staging = web(newer, APP_ENV="staging")
    assert ask(staging.port, "/").status == 503
    staging.wait_for("requests are refused: .* with APP_ENV='production', here it is 'staging'")
    changed.wait_for("runs other code than app:app here")
    other = web("".join(f"account_of_person_{n} = {n}\n" for n in range(20)))
    assert ask(other.port, "/").status == 503
    other.wait_for("requests are refused: .*hardly a line in common.*--name")


@dataclass
class Machine:
    """What a process on some machine tells of itself."""

    folder: str = "/srv/app"
    host: str = "one"
    code: str = " ".join(["whole", *(f"{n:08}" for n in range(20))])
    deployment: str = "{}"


CHANGED = " ".join(["other", *(f"{n:08}" for n in range(3, 23))])
SHORT = "other 00000001"


@pytest.mark.parametrize(
    ("theirs", "name", "refused"),
    [
        (Machine(host="two"), "app", False),
        (Machine(host="two", folder="/opt/app"), "app", False),
        (Machine(host="two", folder="/opt/app", code=CHANGED), "app", False),
        (Machine(host="two", folder="/opt/app", code=SHORT), "app", True),
        (Machine(folder="/srv/staging"), "app", True),
        (Machine(folder="/srv/staging"), "shop", False),
        (Machine(code=CHANGED), "app", False),
        (Machine(code=SHORT), "app", False),
        (Machine(deployment=json.dumps({"APP_ENV": "staging", "FLASK_ENV": "x"})), "shop", True),
        (Machine(deployment=json.dumps({"APP_ENV": "production", "FLASK_ENV": "x"})), "shop", False),
        (Machine(deployment="[]"), "shop", False),
        (Machine(folder="", code="", deployment=""), "app", False),
    ],
)
def test_what_tells_two_deployments_apart(theirs, name, refused):
    """One machine's folders, the code of a name that many have, and the name of an environment."""
    here = Machine(deployment=json.dumps({"APP_ENV": "production"}))
    assert bool(identity.conflict(name, "w", vars(theirs), vars(here))) == refused


@pytest.mark.slow
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
