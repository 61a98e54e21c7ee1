"""The JavaScript client in Node and in Chromium: past redirect limits, over broken networks."""

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from chromium import start_chromium
from harness import ROOT, Gunicorn, is_missing, until

CLIENT = ROOT / "clients" / "wsgi_timeout_client.mjs"


def node(case, url):
    """Run a case of check.mjs, and return what it saw."""
    program = shutil.which("node") or is_missing("node")
    command = [program, Path(__file__).with_name("check.mjs"), CLIENT, case, url]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=50)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_it_waits_past_the_limits_of_redirects(site, gate):
    """A call of more hops than fetch() follows is answered, with its states shown on the way."""
    before = site.web.output.count("/slow")
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(node, "get", f"{site.url}/slow?file={gate}&tag=js-waits")
        until(lambda: site.web.output.count("/slow") > before + 25, 40, "25 hops")
        gate.touch()
        found = answer.result()
    assert (found["status"], json.loads(found["text"])["method"]) == (200, "GET")
    assert "running" in found["states"]
    assert len(site.runs("js-waits")) == 1


def test_it_posts_once(site, gate):
    """A value is posted as JSON, and its answer waited for."""
    gate.touch()
    found = node("post", f"{site.url}/slow?file={gate}&tag=js-post")
    assert found["json"] == {"got": '{"a":1}', "method": "POST"}


def test_who_aborts_cancels_the_call(site, gate):
    """An aborted request ends its handler."""
    assert node("cancel", f"{site.url}/slow?file={gate}&tag=js-cancel")["error"] == "AbortError"
    until(lambda: site.runs("js-cancel-cancelled"), what="the end of the handler")


@pytest.mark.slow
def test_what_the_progress_throws_cancels_the_call(site, gate):
    """An error of the caller's own function is thrown where the response is waited for; the handler ends."""
    assert node("raises", f"{site.url}/slow?file={gate}&tag=js-raises")["error"] == "RangeError"
    until(lambda: site.runs("js-raises-cancelled"), what="the end of the handler")


def test_a_body_that_breaks_off_is_fetched_again(site, breaking):
    """A connection that is cut, in a body too, is made again; the handler runs once."""
    found = node("get", f"{breaking(None, None, 0, 300_000)}/big?tag=js-breaks&seconds=0.8")
    assert found["text"].count("\n") == 1000
    assert len(site.runs("js-breaks")) == 1


def test_a_stream_goes_on_over_a_broken_network(site, breaking, steps):
    """Events come once each, in order, however often the connection is cut; one run."""
    steps.allow(*range(40))
    base = breaking(None, 900, 1200, None, 700, 2000, 900)
    assert node("events", f"{base}/events?folder={steps.folder}&count=40&tag=js-stream")["seen"] == [
        f"{n}\n" for n in range(40)
    ]
    assert len(site.runs("js-stream")) == 1


def test_a_posted_stream_goes_on_over_a_broken_network(site, breaking, steps):
    """Lines of JSON that were posted for go on at the byte where they broke off."""
    steps.allow(*range(200))
    base = breaking(700, 1500, None, 800)
    url = f"{base}/lines?folder={steps.folder}&count=200&tag=js-lines"
    assert node("lines", url)["lines"] == 200
    assert len(site.runs("js-lines")) == 1


def test_a_stream_that_is_left_is_cancelled(site, steps):
    """Leaving the loop ends the run."""
    steps.allow(0)
    assert node("leave", f"{site.url}/events?folder={steps.folder}&tag=js-left")["first"] == "0\n"
    until(lambda: "POST /events" in site.web.output, what="the cancelling")


@pytest.mark.slow
def test_an_ordinary_server_is_asked_as_by_anyone():
    """Redirects, errors and events of a server that knows nothing of calls are what they are."""
    server = Gunicorn("ordinary:app", "redis://unused", cwd=Path(__file__).parent)
    try:
        assert node("get", f"{server.url}/moved")["text"] == "GET /here moved  None"
        assert node("get", f"{server.url}/missing")["status"] == 404
        assert node("get", f"{server.url}/busy")["status"] == 503
        assert node("events", f"{server.url}/events")["seen"] == ["1", "2", "3", "4", "5"]
    finally:
        server.stop()
    assert node("refused", f"{server.url}/form")["error"] == "TypeError"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = start_chromium(tmp_path_factory.mktemp("chromium"))
    browser.set_script_timeout(50)
    yield browser
    browser.quit()


IN_BROWSER = """
const [url, done] = arguments;
import("/client.mjs").then(async ({ get, stream }) => {
  const states = [], events = [];
  const answer = await get(url, { progress: (status) => states.push(status.state) });
  for await (const event of stream(arguments[0].replace("/slow", "/events"))) events.push(event.data);
  done({ status: answer.status, json: await answer.json(), states, events });
}).catch((error) => done({ error: String(error) }));
"""


@pytest.mark.slow
def test_it_waits_in_chromium(site, browser, gate, steps):
    """A page's script waits past twenty redirects, and reads a stream that ends now and then."""
    browser.get(f"{site.url}/page")
    before = site.web.output.count("/slow")
    steps.allow(*range(3))
    url = f"/slow?file={gate}&folder={steps.folder}&tag=chromium"
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(browser.execute_async_script, IN_BROWSER, url)
        until(lambda: site.web.output.count("/slow") > before + 25, 40, "25 hops")
        gate.touch()
        until(lambda: site.web.output.count('"GET /events') > 2, 20, "a stream that goes on")
        steps.allow(*range(5))
        found = answer.result()
    assert (found["status"], found["json"]["method"]) == (200, "GET")
    assert "running" in found["states"]
    assert found["events"] == [f"{n}\n" for n in range(5)]
    assert len(site.runs("chromium")) == 2
