"""Calls that nobody waits for: 202 at once, a status to poll, a result to fetch later."""

import hashlib
import re
import time
from array import array
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from harness import ask, follow, until
from result_urls import MARK


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), wait_for_response="false", wait_seconds=0.3)


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


def started(port, target, method="GET", **options):
    """Start a call; return its result URL and its status URL."""
    answer = ask(port, target, method, **options)
    assert answer.status == 202, answer
    return answer.json["result_url"], answer.json["status_url"]


def status(port, url):
    return ask(port, url).json


def test_a_call_is_accepted_at_once(site, port, gate):
    """The answer is an uncached 202 with the result URL, in `Location` too, while the handler still runs."""
    answer = ask(port, f"/gate?file={gate}&tag=at-once", headers={"Accept": "text/html"})
    assert (answer.status, answer.reason) == (202, "Accepted")
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Cache-Control") == "no-store"
    urls = answer.json
    assert sorted(urls) == ["result_url", "status_url"]
    assert f"http://127.0.0.1:{port}{answer.location}" == urls["result_url"]
    path = f"http://127.0.0.1:{port}" + re.escape(f"/gate?file={gate}&tag=at-once&{MARK}")
    call = re.fullmatch(path + r"call=(fc-[\w-]{22}\.[\w-]{32})&__wsgi_timeout_hop=1", urls["result_url"])
    assert re.fullmatch(path + "status=" + re.escape(call[1]), urls["status_url"])
    gate.touch()
    assert follow(port, urls["result_url"])[-1].text == "passed at-once\n"
    assert len(site.runs("at-once")) == 1


def test_its_result_url_waits_as_any_other(port, gate):
    """A result URL that is opened before the end is redirected, then answered."""
    result, _ = started(port, f"/gate?file={gate}")
    waited = ask(port, result)
    assert (waited.status, waited.location[-1]) == (303, "2")
    gate.touch()
    assert follow(port, waited.location)[-1].status == 200


def test_urls_are_absolute_with_a_public_url(site):
    """With `public_url` both URLs in the answer, and the status's, begin with it."""
    web = site.start_web(gateway="public_url='https://example.com'")
    try:
        answer = ask(web.port, "/fast?a=1")
        urls = [*answer.json.values(), answer.location]
        assert all(url.startswith(f"https://example.com/fast?a=1&{MARK}") for url in urls)
        found = status(web.port, answer.json["status_url"].removeprefix("https://example.com"))
        assert found["result_url"].startswith(f"https://example.com/fast?a=1&{MARK}call=")
    finally:
        web.stop()


def test_the_status_follows_a_call_from_queue_to_end(site, port, gate):
    """The status shows place in the queue, progress, times and outcome, and uses nothing up."""
    _, first = started(port, f"/guarded?file={gate}&tag=first")
    later = [started(port, f"/fast?tag={name}") for name in ("second", "third")]
    until(lambda: status(port, first)["progress"], what="progress")

    running = ask(port, first)
    assert (running.status, running.header("Retry-After")) == (200, "2")
    assert running.header("Cache-Control") == "no-store"
    assert running.json["state"] == "running"
    assert running.json["progress"] == {"done": 1, "total": 3, "message": "one of three"}
    assert (running.json["attempts"], running.json["position"], running.json["ended"]) == (1, None, None)
    assert running.json["created"] <= running.json["started"]

    for place, (_, url) in enumerate(later, start=1):
        queued = ask(port, url)
        assert (queued.json["state"], queued.json["position"]) == ("queued", place)
        assert (queued.json["attempts"], queued.json["started"]) == (0, None)
        assert queued.header("Retry-After") == "2"

    gate.touch()
    url = later[1][1]
    until(lambda: status(port, url)["state"] == "ended", what="the end of the last call")
    ended = ask(port, url)
    assert ended.header("Retry-After") is None
    assert (ended.json["outcome"], ended.json["attempts"], ended.json["delivered"]) == ("done", 1, None)
    assert ended.json["created"] <= ended.json["started"] <= ended.json["ended"]
    assert ended.json["result_url"].startswith(f"http://127.0.0.1:{port}/fast?tag=third&{MARK}call=")
    assert ask(port, ended.json["result_url"]).text == "fast third\n"
    until(lambda: status(port, url)["delivered"] is not None, what="the note of its delivery")
    assert [len(site.runs(name)) for name in ("first", "second", "third")] == [1, 1, 1]


def test_a_running_call_can_be_cancelled(site, port, gate):
    """DELETE on the status URL ends the handler, whose `finally` runs; the result is then 410."""
    result, url = started(port, f"/guarded?file={gate}&tag=cancelled")
    until(lambda: site.runs("cancelled"), what="the handler's begin")
    assert ask(port, url, "DELETE").status == 202
    until(lambda: site.runs("cancelled-finally"), what="the handler's end")
    gone = ask(port, result)
    assert (gone.status, gone.header("Content-Type")) == (410, "application/problem+json")
    assert "cancelled" in gone.json["detail"]
    assert ask(port, url, "DELETE").status == 409
    assert status(port, url)["outcome"] == "cancelled"
    # The worker goes on.
    assert follow(port, started(port, "/fast?tag=next")[0])[-1].text == "fast next\n"


def test_a_waiter_is_told_of_a_cancel(site, port, gate):
    """A waiting client of a call that is cancelled gets 410 at once, and POST cancels as DELETE does."""
    result, url = started(port, f"/guarded?file={gate}")
    record = f"wt:call:{status(port, url)['call_id']}"
    web = site.start_web(gateway="wait_seconds=50")
    try:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(ask, web.port, result)
            until(lambda: site.redis.client.hget(record, "inboxes"), what="the waiter")
            assert ask(port, url, "POST", body=b"x=1").status == 202
            cancelled_at = time.monotonic()
            assert waiting.result().status == 410
            assert time.monotonic() - cancelled_at < 25  # its wait is 50 s
    finally:
        web.stop()


def test_a_queued_call_can_be_cancelled(site, port, gate):
    """A call that is cancelled while it waits for a worker never runs."""
    started(port, f"/gate?file={gate}&tag=ahead")
    result, url = started(port, "/fast?tag=never")
    until(lambda: site.runs("ahead"), what="the other handler's begin")
    assert ask(port, url, "DELETE").status == 202
    assert ask(port, result).status == 410
    gate.touch()
    assert follow(port, started(port, "/fast?tag=after")[0])[-1].text == "fast after\n"
    assert not site.runs("never")


def test_a_large_result_is_fetched_later(site, port):
    """A result of 100 MB lies ready, comes whole, and does not pass through the web process's memory."""
    size = 100_000_000
    result, url = started(port, f"/numbers?size={size}")
    until(lambda: status(port, url)["state"] == "ended", 60, what="the end of the call")
    (web,) = site.web.workers()
    before = peak = psutil.Process(web.pid).memory_info().rss
    got = hashlib.sha256()
    with requests.get(result, stream=True, timeout=30) as answer:
        for piece in answer.iter_content(1_000_000):
            got.update(piece)
            peak = max(peak, psutil.Process(web.pid).memory_info().rss)
    assert got.digest() == hashlib.sha256(array("Q", range(size // 8))).digest()
    assert peak - before < 25_000_000
