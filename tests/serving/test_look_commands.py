"""`wsgi-timeout calls`, `show`, `cancel`, `retry` and `workers`: what those see who are woken at night."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import APPS, ask, environment, until

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), wait_seconds=30)


def run(*words, env, cwd=APPS):
    """Return exit code, standard output and standard error of `wsgi-timeout WORDS`."""
    command = [sys.executable, "-m", "wsgi_timeout.serving.cli", *words]
    found = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    return found.returncode, found.stdout, found.stderr


@pytest.fixture
def look(site):
    """Return a function that runs a command at this site's Redis, and returns its output."""

    def at_site(*words):
        code, output, errors = run(*words, env={**site.env, "REDIS_URL": site.redis.url})
        assert code == 0, errors
        return output

    return at_site


def test_calls_are_seen_from_the_queue_to_their_end(site, look, gate):
    """One that runs and one that waits are listed; cancelled and done they are listed as ended."""

    def calls():
        return [json.loads(line) for line in look("calls", "--name", site.name, "--json").splitlines()]

    def states():
        return {call["call"]: call["state"] for call in calls()}

    with ThreadPoolExecutor(2) as threads:
        runs = threads.submit(ask, site.web.port, f"/gate?file={gate}")
        until(lambda: states() == {"GET /gate": "running"}, what="the first call")
        waits = threads.submit(ask, site.web.port, "/fast?secret=1", headers={"Cookie": "a=secret"})
        until(lambda: states() == {"GET /gate": "running", "GET /fast": "queued"}, what="the second call")
        first, second = sorted(calls(), key=lambda call: call["state"] == "queued")
        assert first["attempts"] == 1
        assert first["worker"]
        assert first["waited_for"] == 1
        assert second["queued_for"] >= 0
        [worker] = [json.loads(line) for line in look("workers", "--name", site.name, "--json").splitlines()]
        assert (worker["target"], worker["calls"]) == ("basic:app", first["id"])
        shown = json.loads(look("show", second["id"], "--json"))
        assert shown["state"] == "queued"
        assert "T" in shown["queued"]
        assert "secret" not in json.dumps(shown)
        assert "is cancelled" in look("cancel", second["id"])
        assert waits.result().status == 410
        gate.touch()
        assert runs.result().status == 200
    ended = {call["call"]: (call["state"], call["outcome"]) for call in calls()}
    assert ended == {"GET /gate": ("ended", "done"), "GET /fast": ("ended", "cancelled")}
    assert "GET /gate" in look("calls", "--state", "ended", "--name", site.name)


def test_what_cannot_be_done_is_one_line(site):
    """An unknown call, one that is no function's, and no Redis are said in one line, with 2 as exit code."""
    env = {**site.env, "REDIS_URL": site.redis.url}
    for words, told in [
        (("show", "fc-none"), "there is no call fc-none"),
        (("cancel", "fc-none"), "there is no call fc-none"),
        (("retry", "fc-none"), "there is no call fc-none"),
    ]:
        code, _, errors = run(*words, env=env)
        assert code == 2
        assert told in errors
        assert errors.count("\n") == 1
    code, _, errors = run("calls", env={**site.env, "REDIS_URL": "unix:///nowhere"})
    assert code == 2
    assert "Redis does not answer" in errors


def test_the_serve_of_this_folder_is_found(serve, folder, env):
    """Without REDIS_URL a command speaks to the embedded server of the `serve` that runs in its folder."""
    assert "no serve with an embedded server runs in this folder" in run("calls", env=env, cwd=folder)[2]
    server = serve("shop:app")
    server.get()
    code, output, _ = run("calls", env=env, cwd=folder)
    assert code == 0
    assert "done" in output
    server.ctrl_c()
    assert server.popen.wait(20) == 0
    assert run("calls", env=env, cwd=folder)[0] == 2


def test_a_mistake_of_the_environment_is_told():
    """A broken REDIS_URL is one line."""
    code, _, errors = run("workers", env={**environment(), "REDIS_URL": "nonsense"})
    assert code == 2
    assert "Traceback" not in errors
