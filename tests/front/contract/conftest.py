"""The web processes of the HTTP contract, on gthread and on gevent."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from contract_site import AMPLE, GEVENT, WAIT
from harness import APPS, Gunicorn, ask, until


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((), id="gthread"),
        pytest.param(("-k", GEVENT), id="gevent", marks=pytest.mark.slow),
    ],
)
def site(deploy, request):
    """The app under each of our gunicorn workers."""
    site = deploy("imported:app", pool=("--processes", "2"), web=request.param, wait_seconds=WAIT)
    # For the contract's further web processes.
    site.env["GUNICORN_CMD_ARGS"] = " ".join(request.param)
    return site


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


@pytest.fixture(scope="module")
def strict(site):
    """A second gunicorn on the same name, with tighter settings."""
    routes = {"/echo": AMPLE, "/pid": AMPLE, "/slow": {"timeout": 20}}
    options = "delivery_grace=0.5, max_request_body=1000, timeout=0.5, trusted_proxies='10.0.0.1'"
    web = site.start_web(gateway=f"{options}, routes={routes}")
    yield web
    web.stop()


@pytest.fixture(scope="module")
def no_wait(site):
    """A third one, which answers 202."""
    web = site.start_web(gateway="wait_for_response=False")
    yield web
    web.stop()


@pytest.fixture(scope="module")
def patient(site):
    """A fourth one, which waits long."""
    web = site.start_web(gateway="wait_seconds=50")
    yield web
    web.stop()


@pytest.fixture(scope="module")
def plain(site):
    """The same app under gunicorn alone."""
    options = ("-k", "gthread", "--threads", "8", "--no-control-socket")
    web = Gunicorn("basic:app", site.redis.url, *options, config=None, env=site.env, cwd=APPS)
    yield web
    web.stop()


@pytest.fixture
def busy(site, gate):
    """Both workers of the site have something to do until the test ends."""
    with ThreadPoolExecutor(2) as threads:
        tag = f"busy-{gate.parent.name}"
        list(threads.map(lambda _: ask(site.web.port, f"/gate?file={gate}&tag={tag}"), range(2)))
        until(lambda: len(site.runs(tag)) == 2, what="both workers at work")
        yield
        gate.touch()
