"""Both clients against servers that know nothing of calls, and keep to little."""

import http.client
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness import ROOT, is_missing
from rough import Rough, events, ok, redirect

sys.path.insert(0, str(ROOT / "clients"))

import wsgi_timeout_client as client

CHECK = Path(__file__).with_name("check.mjs")


def in_python(case, url):
    """Do as check.mjs does."""
    try:
        if case == "get":
            answer = client.get(url)
            return {"status": answer.status, "text": answer.text}
        if case == "post":
            return {"text": client.post(url, json={"a": 1}).text}
        with client.stream(url) as found:
            return {"seen": [event.data for event in found]}
    except (OSError, http.client.HTTPException, client.StreamLost) as error:
        return {"error": type(error).__name__}


def in_node(case, url):
    node = shutil.which("node") or is_missing("node")
    command = [node, CHECK, ROOT / "clients" / "wsgi_timeout_client.mjs", case, url]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)
    if done.returncode:
        return {"error": done.stderr}
    assert not done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=[in_python, in_node], ids=["python", "node"])
def run(request):
    return request.param


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("ending", [b"\r", b"\n", b"\r\n"], ids=["cr", "lf", "crlf"])
def test_an_event_is_told_when_it_has_ended(run, ending):
    """An event is not held back until the next one begins, whatever its lines end with."""
    first = b"\xef\xbb\xbfdata: 0\n\nretry: 1\nretry: \xc2\xb2\n".replace(b"\n", ending)
    second = ending + b"data: 1" + ending
    with Rough(events(first, second, ending)) as server:
        threading.Timer(0.3, server.go.set).start()
        assert run("events", f"{server.url}/events") == {"seen": ["0", "1"]}


def test_only_the_last_bytes_of_an_event_are_missing(run):
    """A line that is cut anywhere, in a character or between CR and LF, is put together again."""
    body = "data: é\r\ndata: 2\r\n\r\nid: 1\rdata:\r\rdata: never ended".encode()
    pieces = [body[n : n + 1] for n in range(len(body))]
    with Rough(events(b": hello\n", *pieces)) as server:
        server.go.set()
        assert run("events", f"{server.url}/events") == {"seen": ["é\n2", ""]}


def test_a_stream_goes_on_by_ids_of_the_apps_own(run):
    """A stream that breaks off is asked for with its last id, byte for byte."""
    chunk = "id: Grüße, 世界\ndata: 0\n\n".encode()
    broken = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%s\r\n" % (len(chunk), chunk)
    )
    with Rough(broken, events(b"data: 1\n\n")) as server:
        assert run("events", f"{server.url}/events") == {"seen": ["0", "1"]}
        assert server.header(1, "Last-Event-ID") == "Grüße, 世界".encode()


def test_an_event_that_was_cut_behind_its_id_is_not_missing(run):
    """An id counts once its event has ended: a stream that breaks before that goes on with that event."""
    chunk = b"id: 1\ndata: 0\n\ndata: 1\nid: 2\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Rough(head + b"%x\r\n%s\r\n" % (len(chunk), chunk), events(b"data: 1\n\n")) as server:
        assert run("events", f"{server.url}/events") == {"seen": ["0", "1"]}
        assert server.header(1, "Last-Event-ID") == b"1"


def test_what_always_breaks_off_is_given_up(run):
    """A body that is never whole is asked for three times, and then is an error."""
    with Rough(ok(b"part", length=9)) as server:
        assert "error" in run("get", f"{server.url}/part")
        assert len(server.requests) == 3


def test_a_stream_that_always_breaks_off_is_given_up(run):
    """A stream that has ids, and brings nothing new when it is asked for again, is an error after a while."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Rough(head + b"10\r\nid: 1\ndata: 0\n\n\r\n", head) as server:
        assert "error" in run("events", f"{server.url}/events")
        assert len(server.requests) <= 4


def test_a_post_is_sent_once(run):
    """A POST whose connection breaks is an error, and not repeated."""
    with Rough(b"") as server:
        assert "error" in run("post", f"{server.url}/form")
        assert server.lines() == ["POST /form HTTP/1.1"]


def test_redirects_for_ever_are_an_error(run):
    """Redirects that have nothing to do with calls are followed twenty times."""
    with Rough(redirect("/again")) as server:
        assert "error" in run("get", f"{server.url}/")
        assert len(server.requests) <= 3 * 21


def test_addresses_are_escaped(run):
    """A URL with spaces and letters of any language is asked for, and so is where it redirects to."""
    with Rough(redirect("/ö/x?a=ä"), ok(b"here")) as server:
        assert run("get", f"{server.url}/grüße an?q=a b&r=%2F")["text"] == "here"
        assert server.lines()[0] == "GET /gr%C3%BC%C3%9Fe%20an?q=a%20b&r=%2F HTTP/1.1"
        assert server.lines()[1] == "GET /%C3%B6/x?a=%C3%A4 HTTP/1.1"


def test_nothing_at_all_is_no_event(run):
    """A 204 in place of a stream is a stream without events."""
    with Rough(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n") as server:
        assert run("events", f"{server.url}/events") == {"seen": []}
