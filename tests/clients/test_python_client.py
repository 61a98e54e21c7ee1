"""The Python client: past redirect limits, over broken networks, against ordinary servers."""

import http.client
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import ROOT, Gunicorn, until
from links import Breaking

sys.path.insert(0, str(ROOT / "clients"))

import wsgi_timeout_client as client


def url_of(base, path, steps=None, **query):
    if steps:
        query = {"folder": steps.folder, **query}
    return f"{base}{path}?" + "&".join(f"{name}={value}" for name, value in query.items())


@pytest.mark.slow
def test_it_waits_past_the_limits_of_redirects(site, gate):
    """A call that takes longer than any client follows redirects is answered, and shown while it runs."""
    seen = []
    with ThreadPoolExecutor(1) as threads:
        url = url_of(site.url, "/slow", file=gate, tag="waits")
        answer = threads.submit(client.post, url, json={"a": 1}, progress=seen.append)
        until(lambda: site.web.output.count("/slow") > 25, 30, "25 hops")
        until(lambda: seen, what="progress")
        gate.touch()
        found = answer.result()
    assert found.json() == {"got": '{"a": 1}', "method": "POST"}
    assert seen[-1]["state"] == "running"
    assert seen[-1]["progress"]["message"] == "half"
    assert len(site.runs("waits")) == 1


@pytest.mark.slow
def test_it_goes_on_after_a_web_process_was_replaced(site, gate):
    """A client that waits while the web half is deployed gets its answer from the next process."""
    web, link = site.start_web(), Breaking(0)
    link.port_behind = web.port
    url = url_of(f"http://127.0.0.1:{link.port}", "/slow", file=gate, tag="deploy")
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(client.get, url)
        until(lambda: web.output.count("/slow") > 3, what="hops")
        web.stop()
        web = site.start_web()
        link.port_behind = web.port
        gate.touch()
        assert answer.result().json()["method"] == "GET"
    web.stop()
    link.close()
    assert len(site.runs("deploy")) == 1


def test_a_body_that_breaks_off_is_fetched_again(site, breaking):
    """A connection that is cut in a body, or before a head, is made again; the handler runs once."""
    # Hops, then a head that is cut, a body that is cut, the rest.
    url = url_of(breaking(None, None, 5, 300_000, 0), "/big", tag="breaks", seconds=0.8)
    answer = client.get(url)
    assert (answer.status, answer.body.count(b"\n")) == (200, 1000)
    assert len(site.runs("breaks")) == 1


@pytest.mark.parametrize("how", ["event", "between hops", "leave"])
def test_who_gives_up_cancels_the_call(site, gate, monkeypatch, how):
    """A cancelled request ends the handler, whichever thread of the client notices; so does a Ctrl-C."""
    if how != "leave":
        if how == "between hops":  # the thread that waits for the response meets it first
            monkeypatch.setattr(client, "_TICK_SECONDS", 3600)
        cancel, tag, before = threading.Event(), f"cancel-{how[:5]}", site.web.output.count("/slow")
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(client.get, url_of(site.url, "/slow", file=gate, tag=tag), cancel=cancel)
            until(lambda: site.runs(tag) and site.web.output.count("/slow") > before + 1, what="a hop")
            cancel.set()
            with pytest.raises(client.Cancelled):
                answer.result()
    else:
        tag = "cancel-leave"
        url = url_of(site.url, "/slow", file=gate, tag=tag)
        with ThreadPoolExecutor(1) as threads:
            # What a Ctrl-C does to the main thread; a call that has not begun would leave no trace.
            def interrupted(_status):
                if site.runs(tag):
                    request.cancel()

            request = client._Request("GET", url, None, progress=interrupted)
            answer = threads.submit(request.whole)
            assert answer.result().status == 410
    until(lambda: site.runs(f"{tag}-cancelled"), what="the end of the handler")


@pytest.mark.slow
def test_what_the_progress_raises_cancels_the_call(site, gate):
    """An error of the caller's own function is raised where the response is waited for; the handler ends."""

    def progress(status):
        raise LookupError(status["state"])

    with pytest.raises(LookupError):
        client.get(url_of(site.url, "/slow", file=gate, tag="raises"), progress=progress)
    until(lambda: site.runs("raises-cancelled"), what="the end of the handler")


@pytest.mark.slow
def test_a_failed_run_is_no_broken_network(site, steps):
    """Lines that break off since their handler has raised are given, and then are an error, soon."""
    steps.allow(0, 1, "raise")
    found = []
    with (
        pytest.raises((OSError, http.client.HTTPException)),
        client.stream(url_of(site.url, "/lines", steps, tag="fails"), method="POST", body=b"x") as lines,
    ):
        found.extend(lines)
    assert b"".join(found).count(b"\n") == 2
    assert len(site.runs("fails")) == 1


def test_a_stream_goes_on_over_a_broken_network(site, breaking, steps):
    """Events come once each, in order, however often the connection is cut; one run."""
    steps.allow(*range(40))
    base = breaking(None, 900, 1200, None, 700, 2000, 900)
    seen = []
    with client.stream(url_of(base, "/events", steps, count=40, tag="stream")) as events:
        seen.extend(event.data for event in events)
    assert seen == [f"{n}\n" for n in range(40)]
    assert len(site.runs("stream")) == 1


def test_a_posted_stream_goes_on_over_a_broken_network(site, breaking, steps):
    """Lines of JSON that were posted for go on at the byte where they broke off."""
    steps.allow(*range(200))
    base = breaking(700, 1500, None, 800)
    with client.stream(
        url_of(base, "/lines", steps, count=200, tag="lines"), method="POST", body=b"hi"
    ) as found:
        body = b"".join(found)
    assert [line.count(b'"prompt": "hi"') for line in body.splitlines()] == [1] * 200
    assert len(site.runs("lines")) == 1


def test_a_stream_that_is_left_is_cancelled(site, steps):
    """Leaving a stream early ends its run."""
    steps.allow(0)
    with client.stream(url_of(site.url, "/events", steps, tag="left")) as events:
        assert next(iter(events)).data == "0\n"
        status = events._request.status_url
    found = client._Request("GET", status, None).whole()
    assert found.json()["outcome"] == "cancelled"


def test_an_ordinary_server_is_asked_as_by_anyone():
    """Redirects, errors and events of a server that knows nothing of calls are what they are."""
    with ThreadPoolExecutor(1):
        server = Gunicorn("ordinary:app", "redis://unused", cwd=ROOT / "tests" / "clients")
    try:
        answer = client.get(f"{server.url}/moved", headers={"X-Test": "t"})
        assert (answer.status, answer.text) == (200, "GET /here moved  t")
        assert answer.url == f"{server.url}/here?moved"
        assert client.post(f"{server.url}/form", b"a=1").text == "POST /form  a=1 None"
        assert client.get(f"{server.url}/missing").status == 404
        assert client.get(f"{server.url}/busy").status == 503
        with client.stream(f"{server.url}/events") as events:
            assert [event.data for event in events] == ["1", "2", "3", "4", "5"]
        with client.stream(f"{server.url}/here") as pieces:
            assert b"".join(pieces) == b"GET /here   None"
    finally:
        server.stop()
    with pytest.raises(OSError, match="refused"):
        client.post(f"{server.url}/form", b"a=1")
