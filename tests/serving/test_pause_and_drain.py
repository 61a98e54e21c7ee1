"""`wsgi-timeout pause`, `resume` and `drain`: no more calls are taken, and who waits is told why."""

import re
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from commands import run_here
from harness import ask, until

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), wait_seconds=30, max_queued=1, page_after=0.1)


@pytest.fixture
def told(site):
    """Return a function that runs a command at this site's Redis, and returns its output."""

    def at_site(*words):
        code, output, errors = run_here(*words, url=site.redis.url)
        assert code == 0, errors
        return output

    return at_site


@pytest.fixture
def paused(site, told):
    assert f"wt:{site.name} is paused" in told("pause", site.name)
    until(lambda: f"queue wt:{site.name} is paused" in site.pool.output, what="the pool's look")
    yield
    told("resume", site.name)


@pytest.mark.usefixtures("paused")
def test_who_waits_is_told(site, told):
    """While a name is paused calls stay queued, and page, status, refusals and `workers` say why."""
    person = {"Accept": "text/html", "Upgrade-Insecure-Requests": "1"}
    with ThreadPoolExecutor(1) as threads:
        first = ask(site.web.port, "/fast?tag=paused", headers=person)
        page = ask(site.web.port, first.location, headers=person)
        assert "Paused for now" in page.text
        status = re.search(r'data-status="([^"]+)"', page.text)[1].replace("&amp;", "&")
        assert ask(site.web.port, status).json["suspended"] is True
        refused = ask(site.web.port, "/fast")
        assert (refused.status, "paused for a while" in refused.text) == (503, True)
        assert "paused" in told("workers", "--name", site.name)
        assert "PAUSED" not in told("calls", "--name", site.name)
        waits = threads.submit(ask, site.web.port, first.location)
        assert site.runs("paused") == []
        assert "is resumed" in told("resume", site.name)
        assert waits.result().text == "fast paused\n"
    assert "was not paused" in told("resume", site.name)


@pytest.mark.slow
@pytest.mark.usefixtures("paused")
def test_a_new_pool_heeds_a_pause(site):
    """Workers that come up during a pause take nothing either."""
    pool = site.start_pool("--processes", "1")
    try:
        until(lambda: f"queue wt:{site.name} is paused" in pool.output, what="its look")
        assert "takes calls" in pool.output
    finally:
        pool.stop()


def test_a_misspelt_name_is_an_error(site):
    """`pause` of a name that no worker has served is refused, with the names that there are."""
    code, _, errors = run_here("pause", "nobody", url=site.redis.url)
    assert (code, "has ever served 'nobody'" in errors, site.name in errors) == (2, True, True)


@pytest.mark.slow
def test_a_drained_pool_ends_after_its_calls(site, told, gate):
    """A pool told to drain takes no call, waits for what runs beyond its grace, and exits with 0."""
    pool = site.start_pool("--processes", "1", "--graceful-timeout", "0")
    other = told("workers", "--name", site.name)
    site.pool.stop(signal.SIGTERM)
    with ThreadPoolExecutor(1) as threads:
        runs = threads.submit(ask, site.web.port, f"/gate?file={gate}")
        until(lambda: site.redis.client.zcard(f"rq:wip:wt:{site.name}"), what="the call")
        [which] = set(re.findall(rf"\S+:{pool.pid}\b", other))
        assert "1 of them when what they run" in told("drain", which)
        pool.wait_for("draining")
        site.pool = site.start_pool("--processes", "1")
        assert ask(site.web.port, "/fast").status == 200
        assert pool.popen.poll() is None
        gate.touch()
        assert runs.result().status == 200
        assert pool.popen.wait(20) == 0
    assert run_here("drain", which, url=site.redis.url)[0] == 2
    pool.stop()
