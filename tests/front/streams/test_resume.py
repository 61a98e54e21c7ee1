"""Event streams whose clients lose their connection: each event once, in order, one run."""

import itertools
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import ask, until
from streamed import Connection, Steps, status

RESUMABLE = {"event_streams": "resumable", "keepalive_seconds": 0.3}


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        "streaming:app",
        pool=("--processes", "4"),
        wait_seconds=30,
        lease_seconds=2.0,
        resume_window=20,
        **RESUMABLE,
    )


@pytest.fixture(scope="module")
def hasty(site):
    """A web process whose wait is short: its streams end between two events, and its calls are redirected."""
    web = site.start_web(gateway="wait_seconds=0.5")
    yield web
    web.stop()


@pytest.fixture
def steps(tmp_path):
    steps = Steps(tmp_path / "steps")
    yield steps
    steps.allow("raise", *range(200))


def target(steps, tag, **options):
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"/events?folder={steps.folder}&tag={tag}&{query}"


@pytest.mark.parametrize("options", [{}, {"crlf": 1}, {"size": 300_000}], ids=["lf", "crlf", "large"])
def test_a_cut_stream_goes_on_in_the_same_run(site, steps, options):
    """A client that comes back with the last id gets the next event of the run that is on its way."""
    url = target(steps, "cut", **options)
    before, port, seen, last = len(site.runs("cut")), site.web.port, [], None
    for number in range(5):
        steps.allow(number)
        with Connection(port, url, last) as connection:
            assert connection.status == 200
            event = connection.event()
            seen.append(event["data"].rstrip("x"))
            assert event["event"] == "token"
            last = event["id"]
    assert seen == ["0", "1", "2", "3", "4"]
    # Its run may be about to end: a connection that is open then just ends.
    until(lambda: status(port, url, last) == 204, what="the end")
    assert len(site.runs("cut")) == before + 1


def test_an_event_is_not_held_back(site, steps):
    """An event comes when the app yields it, before the next one; silence is broken by comments."""
    steps.allow(0)
    with Connection(site.web.port, target(steps, "paced")) as connection:
        for number in range(1, 5):
            assert connection.events(1) == [str(number - 1)]
            if number == 2:
                assert connection.response.peek(1).startswith(b":")
            steps.allow(number)
        assert connection.rest() == ["4"]
    assert connection.comments >= 1
    assert connection.retries == ["500", None, None, None, None]


def test_a_stream_ends_between_two_events_and_goes_on(site, hasty, steps):
    """A stream that outlasts the wait ends cleanly; each connection goes on where the last one ended."""
    steps.allow(0)
    url, last, seen, connections = target(steps, "polite", count=30), None, [], 0
    while len(seen) < 30:
        with Connection(hasty.port, url, last) as connection:
            assert connection.status == 200
            connections += 1
            seen += connection.rest()
            last = connection.ids[-1] if connection.ids else last
        steps.allow(*range(12 if len(seen) < 12 else 30))
    assert seen == [str(n) for n in range(30)]
    assert connections > 1
    assert len(site.runs("polite")) == 1


def test_who_does_not_come_back_is_not_sent_away(site, hasty, steps):
    """A client that is no EventSource keeps its connection: an end would look like the stream's."""
    steps.allow(0)
    with Connection(hasty.port, target(steps, "stays"), accept="*/*") as connection:
        seen = connection.events(1)
        assert connection.response.peek(1).startswith(b":")
        for _ in range(4):
            connection.response.readline()
        steps.allow(*range(5))
        assert seen + connection.rest() == ["0", "1", "2", "3", "4"]


def test_after_the_last_event_there_is_no_more(site, steps):
    """Behind the last event of a run that has ended an EventSource is told to stop, and nothing runs."""
    steps.allow(*range(5))
    with Connection(site.web.port, target(steps, "over")) as connection:
        assert connection.rest() == ["0", "1", "2", "3", "4"]
        result_url = connection.result_url
    for url in (target(steps, "over"), result_url):
        for method in ("GET", "HEAD", "POST"):
            assert status(site.web.port, url, connection.ids[-1], method=method) == 204
        with Connection(site.web.port, url, connection.ids[2]) as again:
            assert again.rest() == ["3", "4"]
    assert len(site.runs("over")) == 1


def test_a_small_whole_body_goes_on_too(site):
    """Events that came at once, with their length, get ids like others."""
    with Connection(site.web.port, "/short") as connection:
        assert connection.header("Content-Length") is None
        assert connection.rest() == ["0", "1"]
    with Connection(site.web.port, "/short", connection.ids[0]) as again:
        assert again.rest() == ["1"]
    assert status(site.web.port, "/short", connection.ids[1]) == 204


def test_two_tabs_both_get_the_whole(site, steps):
    """Two clients of one run, one of them far behind, each get every event."""
    steps.allow(0)
    url = target(steps, "tabs")
    with Connection(site.web.port, url) as one:
        assert one.events(1) == ["0"]
        with (
            Connection(site.web.port, url, one.ids[0]) as two,
            Connection(site.web.port, one.result_url) as three,
        ):
            steps.allow(1, 2, 3, 4)
            assert one.rest() == two.rest() == ["1", "2", "3", "4"]
            assert three.rest() == ["0", "1", "2", "3", "4"]
    assert len(site.runs("tabs")) == 1


@pytest.mark.parametrize(
    "last",
    [
        "17",
        "fc-aaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.3",
        "{id}9999",
        "{call}.wrong-token-of-it.9",
    ],
)
def test_an_unknown_id_reaches_the_app(site, steps, last):
    """An id that is not ours, not known, or names no place in its stream, is the app's affair."""
    steps.allow(*range(5))
    with Connection(site.web.port, target(steps, "unknown")) as connection:
        connection.rest()
    last = last.format(id=connection.ids[-1], call=connection.ids[-1].split(".")[0])
    before = len(site.runs("unknown"))
    with Connection(site.web.port, target(steps, "unknown"), last) as connection:
        assert connection.header("X-Last") == last
        assert connection.rest() == ["0", "1", "2", "3", "4"]
    assert len(site.runs("unknown")) == before + 1


def test_an_id_is_good_for_its_own_path(site, steps):
    """An id of one address opens nothing on another, nor with another query."""
    steps.allow(*range(5))
    before = len(site.runs("path"))
    with Connection(site.web.port, target(steps, "path")) as connection:
        connection.rest()
    with Connection(site.web.port, "/short", connection.ids[1]) as other:
        assert other.rest() == ["0", "1"]
    with Connection(site.web.port, target(steps, "path", count=2), connection.ids[1]) as other:
        assert other.rest() == ["0", "1"]
    assert len(site.runs("path")) == before + 2


@pytest.mark.parametrize("options", ["ids=1", "gzip=1", "ids=1&crlf=1&size=100000"])
def test_what_is_no_stream_of_ours_is_left_alone(site, options):
    """Events with ids of the app's own, and compressed ones, pass byte for byte."""
    plain = site.start_web(gateway="event_streams='plain'")
    try:
        expected = ask(plain.port, f"/events?{options}")
    finally:
        plain.stop()
    assert ask(site.web.port, f"/events?{options}").body == expected.body
    assert expected.header("Link") is None


def test_a_head_runs_and_uses_up_nothing(site, steps):
    """HEAD gets the head alone; on a stream's id nothing is run or used up by it."""
    steps.allow(0)
    with Connection(site.web.port, target(steps, "head")) as connection:
        assert connection.events(1) == ["0"]
        with Connection(site.web.port, target(steps, "head"), connection.ids[0], method="HEAD") as found:
            assert (found.status, found.response.read()) == (200, b"")
        steps.allow(*range(5))
        assert connection.rest() == ["1", "2", "3", "4"]
    assert len(site.runs("head")) == 1


def test_a_silent_beginning_is_kept_alive(site, steps):
    """Before the first event too a proxy sees that the stream lives."""
    steps.allow(0)
    with Connection(site.web.port, f"/silent?folder={steps.folder}") as connection:
        assert connection.response.read1(9) == b": hello\n\n"
        assert connection.response.peek(1).startswith(b":")
        steps.allow(1, 2)
        assert connection.rest() == ["0", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["resume_window=0.5", "event_streams='plain', reader_timeout=0.5"])
def test_a_stream_that_nobody_comes_back_to_ends(site, steps, settings):
    """The handler of a stream whose client is gone for good ends, also behind a redirect."""
    web = site.start_web(gateway=f"wait_seconds=0.2, {settings}")
    tag, numbers = settings[:5], itertools.count(1)
    try:
        url = ask(web.port, target(steps, tag, count=100_000)).location
        steps.allow(0)
        while (hop := Connection(web.port, url, accept="*/*")).status == 303:
            url = hop.header("Location")
            hop.close()
        with hop as connection:
            assert connection.events(1) == ["0"]

        def ended():
            steps.allow(next(numbers))
            return site.runs(f"{tag}-ended")

        until(ended, 40, "the end of the handler")
    finally:
        web.stop()


@pytest.mark.slow
def test_a_silent_stream_that_nobody_comes_back_to_ends(site, steps):
    """A handler that writes nothing is interrupted too when nobody has come back for `resume_window`."""
    web = site.start_web(gateway="resume_window=1.5")
    try:
        steps.allow(0)
        for _ in range(2):
            with Connection(web.port, target(steps, "quiet")) as connection:
                assert connection.events(1) == ["0"]
        with Connection(web.port, target(steps, "quiet"), connection.ids[0]) as again:
            assert again.response.peek(1).startswith(b":")
        until(lambda: len(site.runs("quiet-ended")) == 2, 40, "the end of both handlers")
        assert status(web.port, target(steps, "quiet"), connection.ids[0]) == 200
    finally:
        web.stop()


@pytest.mark.slow
def test_a_stream_whose_web_process_was_killed_ends(site, steps):
    """When its reader's web process is killed, and nobody comes back, a silent handler ends as well."""
    web = site.start_web(gateway="resume_window=1.5")
    steps.allow(0)
    with Connection(web.port, target(steps, "orphan")) as connection:
        assert connection.events(1) == ["0"]
        web.stop(signal.SIGKILL)
    until(lambda: site.runs("orphan-ended"), 60, "the end of the handler")


# -- workers and web processes that go


def test_a_dead_worker_is_told_by_an_event(site, steps):
    """When its worker dies the client gets an event that says so, and is told to stop when it comes back."""
    steps.allow(0)
    with Connection(site.web.port, target(steps, "dies")) as connection:
        assert connection.events(1) == ["0"]
        pid = int(site.runs("dies")[0].split()[1])
        next(child for child in site.pool.descendants() if child.pid == pid).kill()
        lost = connection.event()
        assert lost["event"] == "wsgi-timeout-lost"
        assert lost["data"] == '{"outcome": "lost"}'
        assert connection.event() is None
    with Connection(site.web.port, target(steps, "dies"), connection.ids[0]) as again:
        assert again.event()["event"] == "wsgi-timeout-lost"
    assert status(site.web.port, target(steps, "dies"), lost["id"]) == 204
    assert len(site.runs("dies")) == 1


def test_a_handler_that_raises_is_told_by_an_event(site, steps):
    """An exception in the middle of a stream ends it for good, and does not make the client begin anew."""
    steps.allow(0, 1)
    with Connection(site.web.port, target(steps, "raises")) as connection:
        assert connection.events(2) == ["0", "1"]
        steps.allow("raise")
        lost = connection.event()
        assert (lost["event"], lost["data"]) == ("wsgi-timeout-lost", '{"outcome": "broken"}')
    assert status(site.web.port, target(steps, "raises"), lost["id"]) == 204


def test_a_web_process_that_stops_loses_nothing(site, steps):
    """A deploy of the web half ends a stream between two events; the next process goes on with it."""
    web = site.start_web()
    steps.allow(0, 1)
    try:
        with Connection(web.port, target(steps, "deploy")) as connection:
            assert connection.events(2) == ["0", "1"]
            web.popen.send_signal(signal.SIGTERM)
            assert connection.rest() == []
    finally:
        web.stop()
    steps.allow(*range(5))
    with Connection(site.web.port, target(steps, "deploy"), connection.ids[-1]) as again:
        assert again.rest() == ["2", "3", "4"]
    assert len(site.runs("deploy")) == 1


def test_who_comes_back_is_asked_to_where_others_are_refused(site, steps):
    """An EventSource is not ended for good by a process that is full: others get their 503."""
    web = site.start_web(gateway="max_waiting=1")
    url = target(steps, "full")
    waits = url.replace("/events", "/lines").replace("full", "waits")
    with ThreadPoolExecutor(1) as threads:
        try:
            waiting = threads.submit(ask, web.port, waits, "POST")
            until(lambda: site.runs("waits"), what="a request that waits for its first line")
            event_source = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
            refused = ask(web.port, url, headers=event_source)
            assert (refused.status, refused.header("Content-Type")) == (200, "text/event-stream")
            assert refused.text == "retry: 5000\n: too many requests wait already\n"
            for headers in ({"Accept": "text/event-stream"}, {"Cache-Control": "no-cache"}):
                assert ask(web.port, url, headers=headers).status == 503
            assert ask(web.port, url, "POST", headers=event_source).status == 503
            steps.allow(*range(5))
            assert waiting.result().status == 200
        finally:
            steps.allow("raise")
            web.stop()
    assert not site.runs("full")


# -- streams that are posted for


def test_a_posted_stream_goes_on_by_its_link(site, steps):
    """A POST whose stream broke off is resumed by a GET on the URL in its Link, and not sent again."""
    steps.allow(0, 1)
    url = target(steps, "posted")
    with Connection(site.web.port, url, method="POST", body=b"hello", accept="*/*") as connection:
        assert connection.events(2) == ["0", "1"]
    steps.allow(*range(5))
    with Connection(site.web.port, connection.result_url, connection.ids[0], accept="*/*") as again:
        assert again.rest() == ["1", "2", "3", "4"]
    offset = connection.ids[1].rpartition(".")[2]
    with Connection(site.web.port, f"{connection.result_url}&offset={offset}", accept="*/*") as again:
        assert again.rest() == ["2", "3", "4"]
    assert len(site.runs("posted")) == 1


@pytest.mark.parametrize("name", ["offset", "__wsgi_timeout_offset"])
def test_lines_of_json_go_on_at_a_byte(site, steps, name):
    """Lines of JSON pass as they are, and go on at a byte of theirs on the URL in their Link."""
    steps.allow(0, 1)
    url = f"/lines?folder={steps.folder}&tag={name}"
    with Connection(site.web.port, url, method="POST", body=b"hi", accept="*/*") as connection:
        assert connection.header("Content-Type") == "application/x-ndjson"
        got = connection.response.readline() + connection.response.read1(7)
    steps.allow(*range(5))
    whole = ask(site.web.port, connection.result_url).body
    assert whole.startswith(got)
    assert whole.count(b"\n") == 5
    for offset in (0, len(got), len(whole) - 1):
        assert ask(site.web.port, f"{connection.result_url}&{name}={offset}").body == whole[offset:]
    assert ask(site.web.port, f"{connection.result_url}&{name}={len(whole)}").status == 204
    assert len(site.runs(name)) == 1


def test_a_redirected_stream_goes_on_under_its_result_url(site, hasty, steps):
    """An EventSource that was redirected comes back to the result URL, with its last id, to the same run."""
    first = ask(hasty.port, target(steps, "led"), headers={"Accept": "text/event-stream"})
    assert first.status == 303
    steps.allow(*range(3))
    with Connection(hasty.port, first.location) as connection:
        assert connection.events(2) == ["0", "1"]
    steps.allow(*range(5))
    with Connection(hasty.port, first.location, connection.ids[1]) as again:
        assert again.rest() == ["2", "3", "4"]
    assert status(hasty.port, first.location, connection.ids[1].rpartition(".")[0] + ".end") == 204
    assert len(site.runs("led")) == 1
