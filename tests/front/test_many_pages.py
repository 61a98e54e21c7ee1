"""A thousand people who look at the waiting page at once, and what they cost the others."""

import contextlib
import http.client
import statistics
import sys
import threading
import time

import pytest
from harness import ask

PEOPLE = 1000
#: Seconds between two looks of a page while nothing changes.
PAUSE = 5.0
THREADS = 4


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), gateway="except_=['/fast*']", wait_seconds=50)


@pytest.fixture(scope="module")
def looks(site):
    """The status URLs of so many calls, one of which runs."""
    web = site.start_web(gateway="wait_for_response=False")
    urls = [ask(web.port, "/guarded?file=/nonexistent").json["status_url"] for _ in range(PEOPLE)]
    web.stop()
    return urls


def commands_a_look(site, urls):
    """Return how many commands a look costs Redis, those within scripts included."""

    def total():
        return site.redis.client.info("stats")["total_commands_processed"]

    before = total()
    for url in urls:
        ask(site.web.port, url)
    return (total() - before) / len(urls)


def median_ms(port, times=100):
    def once():
        began = time.perf_counter()
        assert ask(port, "/fast").status == 200
        return (time.perf_counter() - began) * 1000

    return min(statistics.median(once() for _ in range(times)) for _ in range(3))


def look_around(port, urls, stop, seen):
    """Look at each URL once in `PAUSE` seconds, as so many pages do."""
    at = time.monotonic()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        while True:
            for url in urls:
                at += PAUSE / len(urls)
                if stop.wait(max(0.0, at - time.monotonic())):
                    return
                connection.request("GET", url)
                seen.append(b'"ready": false' in connection.getresponse().read())


@pytest.mark.slow
def test_a_thousand_pages(site, looks):
    """A look costs Redis a few commands, and a fast request beside 1,000 pages is about as fast as alone."""
    alone = median_ms(site.web.port)
    # The least of some: what a pool and a web process tell Redis of themselves comes between.
    each = min(commands_a_look(site, looks[start : start + 40]) for start in range(0, 400, 40))
    stop, seen = threading.Event(), []
    parts = [looks[start::THREADS] for start in range(THREADS)]
    threads = [threading.Thread(target=look_around, args=(site.web.port, part, stop, seen)) for part in parts]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    beside = median_ms(site.web.port)
    took = time.monotonic() - began
    stop.set()
    for thread in threads:
        thread.join()
    found = f"{each:.1f} commands a look, {len(seen) / took:.0f} looks/s, {alone:.1f} ms, {beside:.1f} ms"
    sys.stdout.write(f"\n{found}\n")
    assert all(seen)
    assert seen
    assert each < 15
    assert beside < max(100, 10 * alone)
