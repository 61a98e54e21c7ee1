"""`wsgi_blueprint`: any WSGI app below a prefix of a host answers as it does under gunicorn, as calls."""

import http.client
import os
import re
from pathlib import Path

import pytest
import requests
from blueprint_host import HOST, TARGETS_OF_BARE, logged_in, pids, same
from harness import ask, follow
from hypothesis import given, settings
from hypothesis import strategies as st
from result_urls import MARK

#: How many URLs of any kind are compared.
EXAMPLES = 100


# -- what the app sees


@pytest.mark.parametrize("target", TARGETS_OF_BARE)
def test_the_app_sees_the_url_as_under_gunicorn(port, direct, target):
    """SCRIPT_NAME, PATH_INFO, QUERY_STRING and RAW_URI are those of gunicorn with the same SCRIPT_NAME."""
    raw = f"/bare{target}".encode()
    told = same(port, direct("/bare"), raw).json
    assert told["SCRIPT_NAME"] == "/bare"
    assert told["RAW_URI"].encode("latin-1") == raw


@settings(derandomize=True, max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(
        st.characters(min_codepoint=0x21, max_codepoint=0x7E)
        | st.sampled_from(
            ["/", "//", "/../", "?", "&", "=", ";", "%2F", "%25", "%C3%A9", "%FF", "%00", "%0A"]
        )
    ).map("".join),
    st.sampled_from(["GET", "POST", "PROPFIND"]),
)
def test_any_url_is_seen_as_under_gunicorn(port, direct, rest, method):
    """Whatever stands after the prefix, the app is asked the same, or gunicorn refuses it in either place."""
    same(port, direct("/bare"), f"/bare/{rest}".encode(), method)


@pytest.mark.parametrize("target", ["", "/", "//a", "/a%2Fb", "/caf%C3%A9;x?y"])
def test_a_prefix_of_two_segments(port, direct, target):
    """A longer prefix is SCRIPT_NAME as a whole."""
    cookie = logged_in(port)
    same(port, direct("/bare"), f"/bare{target}".encode(), headers={**HOST, **cookie})
    told = ask(port, f"/members/area{target}", headers=cookie).json
    expected = ask(direct("/members/area"), f"/members/area{target}", headers=cookie).json
    paths = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "RAW_URI")
    assert [told[key] for key in paths] == [expected[key] for key in paths]


@pytest.mark.parametrize(
    "method",
    [
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"),
        *("PROPFIND", "MKCOL", "REPORT", "M-SEARCH", "BREW"),
    ],
)
def test_every_method_reaches_the_app(port, direct, method):
    """The host neither refuses a method that it does not know nor answers OPTIONS or HEAD itself."""
    body = b"" if method in {"GET", "HEAD", "TRACE"} else b"some bytes"
    answer = same(port, direct("/bare"), b"/bare/x", method, body=body)
    assert answer.status == 200
    if method != "HEAD":
        assert (answer.json["REQUEST_METHOD"], answer.json["body"]) == (method, len(body))


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "299 Made Up", "404 Here Not"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_without_a_body(port, direct, status, method):
    """Status, reason and headers of an empty response are the app's."""
    answer = same(port, direct("/bare"), f"/bare?empty={status.replace(' ', '+')}".encode(), method)
    assert f"{answer.status} {answer.reason}" == status


REQUESTS = {
    "/flask": [
        ("GET", "/headers"),
        ("HEAD", "/headers"),
        ("GET", "/fast?tag="),
        ("OPTIONS", "/file"),
        ("GET", "/file?cache=no-cache"),
        ("GET", "/empty?status=304"),
        ("GET", "/big?size=300000"),
        ("GET", "/trickle"),
        ("POST", "/file"),
        ("GET", "/missing"),
        ("GET", "/form"),
        ("GET", "/static/missing.css"),
    ],
    "/bottle": [
        ("GET", "/where/a/b?c=d"),
        ("GET", "/where/a//b%2Fc"),
        ("GET", "/where/caf%C3%A9"),
        ("HEAD", "/where/x"),
        ("GET", "/made/x%20y"),
        ("GET", "/away"),
        ("GET", "/lines"),
        ("GET", "/refused"),
        ("GET", "/missing"),
        ("GET", ""),
        ("PUT", "/lines"),
        ("OPTIONS", "/lines"),
        ("GET", "/raises"),
    ],
    "/django": [
        ("GET", "/where/a/b?c=d"),
        ("GET", "/where/a//b%2Fc"),
        ("GET", "/where/caf%C3%A9%20x"),
        ("HEAD", "/where/x"),
        ("GET", "/away"),
        ("GET", "/lines"),
        ("GET", "/slash"),
        ("GET", "/slash/"),
        ("GET", "/missing"),
        ("GET", ""),
        ("GET", "/"),
        ("POST", "/away"),
        ("OPTIONS", "/lines"),
        ("GET", "/raises"),
    ],
}


@pytest.mark.parametrize(
    ("prefix", "method", "target"),
    [(prefix, method, target) for prefix, cases in REQUESTS.items() for method, target in cases],
)
def test_flask_bottle_and_django_answer_as_they_do_alone(port, direct, prefix, method, target):
    """Routing, redirects, links, errors and streams of other frameworks are what they are without a host."""
    same(port, direct(prefix), f"{prefix}{target}".encode(), method)


def test_a_form_with_a_file_reaches_bottle(port, direct):
    """A multipart upload, larger than what travels with the call, arrives in the wrapped app."""
    data = os.urandom(300_000)
    form = {"files": {"part": ("caf\xe9.bin", data)}, "data": {"field": "value"}}
    answers = [
        requests.post(f"http://127.0.0.1:{number}/bottle/upload", **form, timeout=30)
        for number in (port, direct("/bottle"))
    ]
    assert answers[0].json()["length"] == len(data)
    assert answers[0].json() == answers[1].json()


def test_a_chunked_body_reaches_the_app(port):
    """A body of unknown length is read to its end."""
    pieces = (b"x" * 70_000 for _ in range(3))
    answer = requests.post(f"http://127.0.0.1:{port}/bare/x", data=pieces, timeout=30)
    assert answer.json()["body"] == 210_000


def test_a_session_of_the_wrapped_app_goes_on(port):
    """Django's session cookie comes back to it, as does the host's own session."""
    with requests.Session() as client:
        client.post(f"http://127.0.0.1:{port}/login/ann", timeout=30)
        url = f"http://127.0.0.1:{port}/django/count"
        assert [client.get(url, timeout=30).text for _ in range(3)] == [
            "1 visits\n",
            "2 visits\n",
            "3 visits\n",
        ]
        assert set(client.cookies.keys()) == {"session", "sessionid"}


def test_it_runs_in_the_workers(port, web, pools):
    """The host's process never runs, nor imports, the wrapped app."""
    assert ask(port, "/bare?pid").json["pid"] in pids(pools["bare"])
    assert ask(port, "/flask/pid").json["pid"] in pids(pools["below-flask"])


def test_a_stream_is_passed_on_as_it_comes(port, gate):
    """The first piece of a response is at the client while the app still writes the second one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/bare?pieces=2&file={gate}")
    response = connection.getresponse()
    assert response.readline() == b"piece 0\n"
    gate.touch()
    assert response.read() == b"piece 1\n"
    connection.close()


def test_a_break_in_a_response_is_seen(port):
    """A response that the app broke off does not look complete through the host either."""
    with pytest.raises(http.client.IncompleteRead):
        ask(port, "/flask/breaks?pieces=2")


@pytest.mark.parametrize("target", ["/bare?raise", "/flask/breaks", "/flask/raises"])
def test_an_exception_is_a_500(port, target):
    """An app that raises is the host's 500, or its own, as if it had been called in place."""
    assert ask(port, target).status == 500


# -- redirects


@pytest.mark.parametrize(
    "target",
    [
        "/bare",
        "/bare//a//b",
        "/bare/a%2Fb",
        "/bare/caf%C3%A9",
        "/bare/a;b=c?d;e=1&&f",
        "/bare/%2F%2Fevil.example",
        "/of/acme/x",
        "/team/bare/x",
        "/bottle/wait",
        "/django/wait",
        "/flask/gate",
        "/nesting/inner/x//y",
    ],
)
def test_a_redirect_leads_back(hasty, gate, target):
    """A slow request is redirected to its own URL with our parameters, and there its response comes."""
    mark = "&" if "?" in target else "?"
    first = ask(hasty, f"{target}{mark}file={gate}", headers=HOST)
    assert first.status == 303
    own, _, ours = first.location.partition(f"&{MARK}call=")
    assert own == f"{target}{mark}file={gate}"
    assert re.fullmatch(r"fc-[\w-]{22}\.[\w-]{32}&__wsgi_timeout_hop=1", ours)
    second = ask(hasty, first.location, headers=HOST)
    assert second.location == first.location[:-1] + "2"
    gate.touch()
    last = follow(hasty, second.location, headers=HOST)[-1]
    assert last.status == 200
    expected = follow(hasty, f"{target}{mark}file={gate}", headers=HOST)[-1]
    assert last.body == expected.body
    assert MARK not in last.text


def test_a_post_is_not_run_again_by_its_result_url(hasty, env, gate):
    """`curl -X POST -L` through the blueprint: the call runs once, its body is read once."""
    *redirects, last = follow(hasty, "/flask/slow?seconds=1&tag=posted", "POST", body=b"12345")
    assert redirects
    assert last.text == "slow POST posted 5\n"
    assert len(re.findall("^posted ", Path(env["RUNS_FILE"]).read_text(), re.MULTILINE)) == 1


def test_a_route_answers_at_once(port):
    """`routes` takes patterns below the prefix; the 202's URLs stand under it."""
    accepted = ask(port, "/some/calls/now?pid")
    assert accepted.status == 202
    assert accepted.location.startswith(f"/some/calls/now?pid&{MARK}call=")
    assert ask(port, accepted.json["status_url"]).status == 200
    assert follow(port, accepted.location)[-1].json["PATH_INFO"] == "/calls/now"


def test_only_leaves_the_rest_in_the_host(port, web, pools):
    """`only` takes patterns below the prefix; the rest runs in the web process."""
    assert ask(port, "/some/calls/x?pid").json["pid"] in pids(pools["bare"])
    told = ask(port, "/some/where?pid").json
    assert told["pid"] in pids(web)
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/some", "/where")
