"""A host with blueprints of many apps, served by gunicorn, with the apps' pools."""

import pytest
from blueprint_host import DIRECT, SHORT, TARGETS, WAIT, stop_all
from harness import APPS, FAST, Gunicorn, Pool, environment


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    runs = tmp_path_factory.mktemp("blueprint") / "runs"
    runs.touch()
    # Flask's `Allow` is a set in the order of its hashes.
    return {
        **environment(**{**FAST, "wait_seconds": WAIT}),
        "RUNS_FILE": str(runs),
        "PYTHONHASHSEED": "0",
    }


@pytest.fixture(scope="module")
def pools(redis_server, env):
    """A pool of one worker for each app, but for two for the bare one."""
    options = {"bare": "2"}
    started = {
        name: Pool(
            target,
            name,
            redis_server.url,
            *("--processes", options.get(name, "1")),
            env={**env, "ONLY_IN_WORKERS": "1"},
            cwd=APPS,
            wait=False,
        )
        for name, target in TARGETS.items()
    }
    for pool in started.values():
        pool.wait_until_ready()
    yield started
    stop_all(list(started.values()))


@pytest.fixture(scope="module")
def serve(redis_server, env):
    """Return a function that serves an app with gunicorn, once for the module."""
    started = {}

    def start(app, script="", config="python:wsgi_timeout.gunicorn_conf", wait=WAIT):
        key = app, script, config, wait
        if key not in started:
            options = () if config else ("-k", "gthread", "--threads", "8", "--no-control-socket")
            more = {"WSGI_TIMEOUT_WAIT_SECONDS": str(wait)} | ({"SCRIPT_NAME": script} if script else {})
            started[key] = Gunicorn(
                app, redis_server.url, *options, env={**env, **more}, cwd=APPS, config=config
            )
        return started[key]

    yield start
    stop_all(list(started.values()))


@pytest.fixture(scope="module")
def web(serve, pools):
    """gunicorn with the host."""
    return serve("host:host")


@pytest.fixture(scope="module")
def port(web):
    return web.port


@pytest.fixture(scope="module")
def hasty(serve, pools):
    """Return the port of a gunicorn that redirects soon."""
    return serve("host:host", wait=SHORT).port


@pytest.fixture(scope="module")
def direct(serve):
    """Return a function that gives the port where an app is served alone, under the same prefix."""
    return lambda prefix: serve(DIRECT[prefix], script=prefix, config=None).port
