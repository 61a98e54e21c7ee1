"""WsgiDAV under litmus, the test suite for WebDAV servers: through jobs it is the same server."""

import os
import re
import shutil
import subprocess

import pytest
from harness import APPS, Deployment, Gunicorn, is_missing


@pytest.fixture(scope="module")
def litmus():
    program = shutil.which("litmus")
    if not program:
        is_missing("litmus")
    return program


def outcome(litmus, url, folder):
    """Return what litmus says of each test, without the pace at which it says it."""
    folder.mkdir()
    done = subprocess.run(
        [litmus, "-k", f"{url}/"], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    # A terminal's progress: what stands after the last carriage return of a line is its end.
    lines = [line.rpartition("\r")[2].rstrip() for line in done.stdout.split("\n")]
    return [re.sub(re.escape(url), "URL", line) for line in lines if line]


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_litmus_says_the_same(redis_server, litmus, tmp_path, monkeypatch):
    """Every test of the suite, of locks and properties too, passes or fails as under gunicorn alone."""
    # Locks and properties are in one process's memory, as they are directly.
    seen = {}
    for way in ("alone", "jobs"):
        (tmp_path / way).mkdir()
        monkeypatch.setenv("DAV_FOLDER", str(tmp_path / way))
        if way == "jobs":
            site = Deployment(redis_server, "wsgi_dav:app", pool=("--processes", "1"), wait_seconds=20)
            url, stop = site.url, site.stop
        else:
            env = {**os.environ, "PYTHONPATH": str(APPS)}
            options = ("-k", "gthread", "--threads", "1", "--no-control-socket")
            web = Gunicorn("wsgi_dav:app", redis_server.url, *options, config=None, env=env, cwd=APPS)
            url, stop = web.url, web.stop
        try:
            seen[way] = outcome(litmus, url, tmp_path / f"{way}-log")
        finally:
            stop()
    assert seen["jobs"] == seen["alone"]
    passed = [line for line in seen["jobs"] if line.endswith("pass")]
    assert len(passed) > 70, "\n".join(seen["jobs"])
