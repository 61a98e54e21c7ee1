"""`wsgi_blueprint`: any WSGI app below a prefix of a host answers as it does under gunicorn, as calls."""

import http.client
import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from flask import Flask
from harness import APPS, FAST, Answer, Gunicorn, Pool, ask, environment, follow
from hypothesis import given, settings
from hypothesis import strategies as st

from wsgi_timeout import ConfigurationError, wsgi_blueprint

#: Seconds that most requests wait, however busy the machine is.
WAIT = 30
#: Seconds after which a request is redirected where a test wants that.
SHORT = 0.3

#: What the workers serve, by the name of its queue.
TARGETS = {
    "bare": "bare:app",
    "below-flask": "basic:app",
    "bottled": "bottled:app",
    "django_project": "django_project:application",
    "nesting": "nesting:app",
    "several": "several:stub",
    "hosts": "host:host",
}

#: The prefix of an app in the host, and what gunicorn serves directly under the same one.
DIRECT = {
    "/bare": "bare:app",
    "/members/area": "bare:app",
    "/flask": "basic:app",
    "/bottle": "bottled:app",
    "/django": "django_project:application",
}

MARK = "__wsgi_timeout_"
#: How many URLs of any kind are compared.
EXAMPLES = 100
HOST = {"Host": "shop.example"}


def stop_all(processes):
    with ThreadPoolExecutor(len(processes)) as threads:
        list(threads.map(lambda process: process.stop(), processes))


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


def pids(process):
    return {child.pid for child in process.workers()}


def exchange(port, target, method="GET", headers=HOST, body=b""):
    """Send a request target byte for byte, also one that `http.client` would not send."""
    fields = {"Connection": "close", "Content-Length": str(len(body)), **headers}
    lines = [f"{method} ".encode() + target + b" HTTP/1.1"]
    lines += [f"{name}: {value}".encode() for name, value in fields.items()]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(b"\r\n".join([*lines, b"", body]))
        response = http.client.HTTPResponse(sock, method=method)
        response.begin()
        return Answer(response.status, response.reason, response.getheaders(), response.read())


def seen(answer):
    """Return what a client sees of an answer, but for the server's own headers."""
    return answer.status, answer.reason, answer.app_headers, answer.body


def same(port, direct_port, target, method="GET", **options):
    """Compare the answer of the host with the direct one, and return it."""
    ours = exchange(port, target, method, **options)
    assert seen(ours) == seen(exchange(direct_port, target, method, **options))
    return ours


# -- what the app sees

TARGETS_OF_BARE = [
    "",
    "/",
    "?a=1",
    "//",
    "///a//b//",
    "/a//b?c=//d",
    "/a%2Fb",
    "/%2F",
    "/%2F%2Fevil.example/x",
    "/caf%C3%A9",
    "/%E2%9C%93",
    "/%FF%FE",
    "/a;b=c/d;e?f;g=1",
    "/%3B%3F%23",
    "/a/../b/./c/..",
    "/%2e%2e/x",
    "/a%0Ab%0D",
    "/a%20b+c",
    "/100%25",
    "/*",
    "/a:b@c,d!$&'()",
    "/a%zz",
    "/|^`{}",
    "?",
    "/x?a&b=&=c&&a=2",
    "/x?a=%2F%20+%C3%A9&A=1",
    "/x?[]=1|2",
]


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
    """Django's session cookie comes back to it, beside the host's own session."""
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


# -- the host's own


def logged_in(port, user="ann"):
    """Return the header of a client that has logged in to the host."""
    answer = ask(port, f"/login/{user}", "POST")
    return {"Cookie": answer.header("Set-Cookie").partition(";")[0]}


def test_the_hosts_own_routes_come_first(port, web):
    """A route of the host below a prefix, or that only begins like it, is the host's."""
    for path in ("/bare/own", "/barefoot"):
        assert ask(port, path).json["pid"] in pids(web)
    assert ask(port, "/bare/own/x").json["PATH_INFO"] == "/own/x"
    assert ask(port, "/nowhere").status == 404
    assert ask(port, "/barefeet").status == 404


@pytest.mark.parametrize("method", ["GET", "POST", "PROPFIND", "OPTIONS"])
@pytest.mark.parametrize("target", ["/members/area", "/members/area/x?pid", "//members/area/x"])
def test_the_login_check_guards_a_request(port, target, method):
    """Who is not logged in gets the host's login, and nothing runs."""
    answer = exchange(port, target.encode(), method)
    assert (answer.status, answer.location) == (302, "/login")
    assert exchange(port, target.encode(), method, headers={**HOST, **logged_in(port)}).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_the_login_check_guards_a_result_url(hasty, gate, method):
    """The right token alone is not enough: without a login every hop, and the status URL, is the login."""
    cookie = logged_in(hasty)
    first = ask(hasty, f"/members/area/x?file={gate}", headers=cookie)
    assert first.status == 303
    gate.touch()
    status = first.location.replace(f"{MARK}call", f"{MARK}status").partition(f"&{MARK}hop")[0]
    for url in (first.location, status):
        refused = ask(hasty, url, method)
        assert (refused.status, refused.location) == (302, "/login")
    # What was refused has used nothing up, nor cancelled the call.
    answer = follow(hasty, first.location, headers=cookie)[-1]
    assert answer.json["PATH_INFO"] == "/x"


def test_who_has_logged_out_gets_nothing(hasty, gate):
    """A client that logs out while its request runs gets the login, not the result."""
    with requests.Session() as client:
        base = f"http://127.0.0.1:{hasty}"
        client.post(f"{base}/login/ann", timeout=30)
        first = client.get(f"{base}/members/area/x?file={gate}", timeout=30, allow_redirects=False)
        assert first.status_code == 303
        client.post(f"{base}/logout", timeout=30)
        gate.touch()
        answer = client.get(base + first.headers["Location"], timeout=30, allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (302, "/login")


@pytest.mark.parametrize("prefix", ["/bare", "/team/bare", "//bare", "/bare//members/area", "/some/calls"])
def test_a_result_belongs_to_its_place(hasty, gate, prefix):
    """The same app under a prefix without a login does not give out what was asked for behind one."""
    cookie = logged_in(hasty)
    location = ask(hasty, f"/members/area/x?file={gate}", headers=cookie).location
    gate.touch()
    elsewhere = location.replace("/members/area", prefix)
    assert exchange(hasty, elsewhere.encode(), headers={**HOST, **cookie}).status == 404
    assert follow(hasty, location, headers=cookie)[-1].status == 200


def test_a_blueprints_own_guard(hasty, gate):
    """`before_request` of the blueprint itself guards both, too."""
    assert ask(hasty, "/staff/x").status == 403
    admin = logged_in(hasty, "admin")
    location = ask(hasty, f"/staff/x?file={gate}", headers=admin).location
    gate.touch()
    assert ask(hasty, location, headers=logged_in(hasty)).status == 403
    assert follow(hasty, location, headers=admin)[-1].status == 200


def test_after_request_signs_every_answer(hasty, gate):
    """The host's `after_request` and session reach the redirect and the response, after the app's headers."""
    cookie = logged_in(hasty)
    first = ask(hasty, f"/members/area?file={gate}", headers=cookie)
    gate.touch()
    last = follow(hasty, first.location, headers=cookie)[-1]
    assert (first.status, last.status) == (303, 200)
    assert [answer.header("X-Host") for answer in (first, last)] == ["members.call for ann"] * 2
    cookies = [value.partition(";")[0] for name, value in last.headers if name == "Set-Cookie"]
    assert cookies[:2] == ["a=1", "b=2"]
    assert cookies[2] == 'host="was here"'
    assert cookies[3].startswith("session=")


def test_a_form_that_the_host_has_read(port):
    """A body that `before_request` took away is an error that says so, and no empty form in the app."""
    answer = requests.post(
        f"http://127.0.0.1:{port}/bottle/upload?peek",
        files={"part": ("x", b"data")},
        data={"field": "value"},
        timeout=30,
    )
    assert answer.status_code == 400
    assert re.fullmatch(r"the request body ended after 0 of \d+ bytes", answer.json()["detail"])


def test_a_websocket_is_refused(port):
    """A WebSocket handshake gets our 501, not a 400 of the host's routing."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAA",
    }
    assert ask(port, "/bare/x", headers=headers).status == 501


# -- hosts of other shapes


@pytest.mark.parametrize("target", TARGETS_OF_BARE[1:])
def test_an_app_at_the_root(serve, pools, target):
    """Without a prefix the app has all that the host has no route for, with an empty SCRIPT_NAME."""
    ports = serve("host:root").port, serve("bare:app", config=None).port
    told = same(*ports, target.encode() if target.startswith("/") else b"/" + target.encode()).json
    assert told.get("SCRIPT_NAME", "") == ""


def test_a_route_beside_an_app_at_the_root(serve, pools):
    """The host's routes come before an app at the root."""
    root = serve("host:root")
    assert ask(root.port, "/own").json["pid"] in pids(root)
    assert ask(root.port, "/own/x?pid").json["pid"] in pids(pools["bare"])


@pytest.mark.parametrize("target", ["/bare", "/bare//a%2Fb?c", "/of/acme/x", "/team/bare/y"])
def test_a_host_that_is_mounted_itself(serve, pools, gate, target):
    """Below a SCRIPT_NAME of the host, the app's is both; the result URL stands under it."""
    port = serve("host:host", script="/site", wait=SHORT).port
    prefix = re.match(r"/bare|/of/acme|/team/bare", target)[0]
    mark = "&" if "?" in target else "?"
    location = ask(port, f"/site{target}{mark}file={gate}").location
    assert location.startswith(f"/site{target}{mark}file={gate}&{MARK}call=")
    gate.touch()
    assert follow(port, location)[-1].json["SCRIPT_NAME"] == f"/site{prefix}"


def test_one_inside_another(port, pools):
    """A wrapped app with a blueprint of this kind runs what it wraps in place, in its own worker."""
    (worker,) = pids(pools["nesting"])
    assert ask(port, "/nesting/pid").json["pid"] == worker
    told = ask(port, "/nesting/inner/x%2Fy?pid").json
    assert told["pid"] == worker
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/nesting/inner", "/x/y")


def test_a_stub_below_a_prefix(port, pools):
    """The web functions of a stub are mounted under the prefix and their labels, each with its settings."""
    told = ask(port, "/stub/site/a//b?c", headers=HOST).json
    assert told["pid"] in pids(pools["several"])
    assert (told["root"], told["path"]) == ("/stub/site", "a//b")
    assert ask(port, "/stub/v1.api/x").text == "from the API"
    accepted = ask(port, "/stub/later?x=3")
    assert accepted.status == 202
    assert accepted.location.startswith(f"/stub/later?x=3&{MARK}call=")
    assert ask(port, accepted.location).json == {"later": 3}
    assert ask(port, "/stub/missing").status == 404


def test_a_host_behind_a_gateway(serve, pools):
    """Where the host itself runs in workers, so does all that it wraps: one call, not two."""
    port = serve("wsgi_timeout:gateway('host:host', name='hosts')").port
    told = ask(port, "/bare/x?pid").json
    assert told["pid"] in pids(pools["hosts"])
    assert told["SCRIPT_NAME"] == "/bare"
    assert ask(port, "/members/area").location == "/login"


# -- in this process


@pytest.fixture
def made(monkeypatch):
    """Return a function that makes a host of this process, which has no Redis."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.syspath_prepend(APPS)

    def make(target="bare:app", prefix="/bare", subdomain=None, **options):
        app = Flask("made", subdomain_matching=subdomain is not None)
        app.testing = True
        app.register_blueprint(wsgi_blueprint(target, **options), url_prefix=prefix, subdomain=subdomain)
        return app

    return make


def get(app, target, **options):
    """Ask the app in this process; the response is read and closed, as a server does."""
    return app.test_client().get(target, buffered=True, **options)


def test_testing_runs_in_place(made):
    """With `testing` of the host the wrapped app runs in the test's process, without a Redis."""
    answer = get(made(), "/bare/x?pid")
    assert (answer.json["pid"], answer.json["SCRIPT_NAME"]) == (os.getpid(), "/bare")


def test_eager_runs_in_place(made):
    """`eager` says what `testing` says, and stands before it."""
    app = made(eager=True)
    app.testing = False
    assert get(app, "/bare/x?pid").json["pid"] == os.getpid()
    with pytest.raises(ConfigurationError, match="REDIS_URL is not set"):
        get(made(eager=False), "/bare/x")


@pytest.mark.parametrize(
    ("prefix", "target", "script"),
    [
        ("/caf\xe9", "/caf%C3%A9/x", "/caf\xc3\xa9"),
        ("/a b/c", "/a%20b/c/x", "/a b/c"),
        ("/a/b/c/", "/a/b/c/x", "/a/b/c"),
        ("/<int:shop>/<lang>", "/7/de/x", "/7/de"),
        ("/", "/x", ""),
        (None, "/x", ""),
    ],
)
def test_prefixes(made, prefix, target, script):
    """A prefix may have spaces, letters of any kind, a slash at its end, or variables."""
    told = get(made(prefix=prefix), target).json
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == (script, "/x")


def test_a_subdomain(made):
    """A blueprint on a subdomain is there, and nowhere else."""
    app = made(subdomain="legacy")
    app.config["SERVER_NAME"] = "shop.example"
    assert get(app, "/bare/x", base_url="http://legacy.shop.example").status_code == 200
    assert get(app, "/bare/x", base_url="http://shop.example").status_code == 404


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"target": "no such module:app"}, "write module:app, module:factory() or file.py:app"),
        ({"only": "/x"}, "only='/x': write a list of patterns, ['/x']"),
        ({"except_": ["x"]}, "route pattern 'x': write a path that begins with /"),
        ({"routes": {"/x": {"max_waiting": 3}}}, "route '/x': max_waiting cannot be set per route"),
        ({"wait": 3}, "unknown setting 'wait': use one of wait_seconds"),
        ({"timeout": -1}, "timeout=-1: must be at least"),
    ],
)
def test_mistakes_are_told_where_they_are_written(made, options, complaint):
    """A bad target, pattern or setting fails when the blueprint is made."""
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        made(**options)


def test_two_apps_of_one_module_need_names(made):
    """Two blueprints of one name in one host are refused by Flask."""
    app = made()
    with pytest.raises(ValueError, match="The name 'bare' is already registered"):
        app.register_blueprint(wsgi_blueprint("bare:app"), url_prefix="/second")
    app.register_blueprint(wsgi_blueprint("bare:app"), url_prefix="/second", name="second")
    assert get(app, "/second/x").json["SCRIPT_NAME"] == "/second"
