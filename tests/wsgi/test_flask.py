"""What Flask runs around a view: alone and through jobs the answers are the same, and what ran when."""

import re
import socket
from itertools import count

import pytest
from harness import until
from wire import exchange, parse, request

#: Where a request of `wsgi_flask.py` can fail.
PLACES = {
    "/view": [
        "url_value_preprocessor",
        "before_request",
        "view",
        "errorhandler",
        "after_request",
        "save_session",
        "teardown_request",
        "teardown_appcontext",
    ],
    "/stream": ["after_request", "teardown_request", "first", "later", "last"],
    "/closes": ["one", "two", "three"],
}
FAILURES = [f"{path}?raise={place}" for path, places in PLACES.items() for place in places]
#: Methods, ranges and conditions under which a file is asked for.
CONDITIONS = [
    b"Range: bytes=0-0",
    b"Range: bytes=100-199",
    b"Range: bytes=-100",
    b"Range: bytes=70000-",
    b"Range: bytes=0-1,5-9",
    b"Range: bytes=9999999-",
    b"Range: lines=1-2",
    b'If-None-Match: "large"',
    b'If-None-Match: "other"',
    b"If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT",
    b"If-Modified-Since: Sat, 08 Sep 2001 01:46:40 GMT",
    b"If-Unmodified-Since: Sat, 08 Sep 2001 01:46:40 GMT",
    b'If-Match: "other"',
    b'If-Range: "large"\r\nRange: bytes=5-9',
    b'If-Range: "other"\r\nRange: bytes=5-9',
]
_tags = count()


@pytest.fixture(scope="module")
def sites(both):
    return both("wsgi_flask:app", pool=("--processes", "1"), wait_seconds=20)


def ask(web, target, *headers, method=b"GET", body=b"", tag=b""):
    fields = [*headers, b"Content-Length: %d" % len(body)] if body else headers
    data = request(target.encode(), method, (b"X-Tag: " + tag, *fields), body)
    return parse(exchange(web.port, data), head=method == b"HEAD")


def ledger(site, tag):
    return [line.partition(" ")[2] for line in site.runs(tag)]


def comparable(answer):
    """Return an answer without times: within its session cookie, and when it expires."""
    headers = tuple(
        (name, re.sub(rb"(session=[^.;]*)[^;]*", rb"\1", value))
        for name, value in answer.headers
        if name != b"Expires"
    )
    return answer.status, headers, answer.body, answer.complete


def same(sites, target, *headers, **options):
    """Return the answer through jobs and what ran for it, which must both be those of gunicorn alone."""
    alone, site = sites
    tags = f"alone-{next(_tags)}", f"ours-{next(_tags)}"
    expected, answer = (
        ask(web, target, *headers, tag=tag.encode(), **options)
        for web, tag in zip((alone, site.web), tags, strict=True)
    )
    assert comparable(answer) == comparable(expected)
    # There is one worker: when it has answered this, it has done with the request before.
    assert ask(site.web, "/view").body == b"view\n"
    ran = ledger(site, tags[1])
    assert ran == ledger(site, tags[0])
    return answer, ran


@pytest.mark.parametrize("method", [b"GET", b"HEAD"], ids=["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/view", "/view?answer=before_request", "/stream?word=a", "/closes", "/no"])
def test_all_runs_in_its_order_and_once(sites, path, method):
    """Before, after and teardown functions, streams and what is to be closed run when they do alone."""
    _, ran = same(sites, path, method=method)
    assert ran.count("before_request fresh") == 1
    # Flask 3.1 tears down what stream_with_context keeps a second time.
    assert path.startswith("/stream") or ran.count("teardown_request None") == 1
    if path == "/closes":
        assert ran[-3:] == ["closed one", "closed two", "closed three"]


@pytest.mark.parametrize("target", FAILURES)
def test_a_failure_anywhere_is_what_gunicorn_alone_sends(sites, target):
    """Wherever a request fails, the client sees what it sees alone, and the same functions run after it."""
    _, ran = same(sites, target)
    assert any(line.startswith("teardown_request") for line in ran)


def test_a_teardown_function_is_given_the_exception(sites):
    """What a view raised reaches the teardown functions, once each; Flask answers 500."""
    answer, ran = same(sites, "/view?raise=view")
    assert answer.status == b"HTTP/1.1 500 INTERNAL SERVER ERROR"
    error = "ValueError('as intended, view')"
    assert ran[-2:] == [f"teardown_request {error}", f"teardown_appcontext {error}"]


def test_a_session_goes_on_and_g_does_not(sites):
    """The session comes back with its cookie; `g` is a new one for each request."""
    for web in (sites[0], sites[1].web):
        cookie, seen = b"a=1", []
        for _ in range(3):
            answer = ask(web, "/count", b"Cookie: " + cookie)
            cookie = answer.header(b"set-cookie").partition(b";")[0]
            seen.append(answer.body)
        assert [b'"count":%d' % number in body for number, body in enumerate(seen, 1)] == [True] * 3
    _, ran = same(sites, "/count", b"Cookie: " + cookie)
    assert ran.count("before_request fresh") == 1


@pytest.mark.parametrize("method", [b"GET", b"HEAD"], ids=["GET", "HEAD"])
@pytest.mark.parametrize("condition", [None, *CONDITIONS], ids=str)
def test_a_file_is_sent_as_alone(sites, condition, method):
    """Ranges and conditions are the app's own affair: 206, 304, 412 and 416 come as they come alone."""
    same(sites, "/large", *([condition] if condition else []), method=method)


def test_a_range_is_told_as_a_part(sites):
    """A range of a large file is the bytes that were asked for, announced as 206."""
    answer, _ = same(sites, "/large", b"Range: bytes=70000-70009")
    whole, _ = same(sites, "/large")
    assert answer.status == b"HTTP/1.1 206 PARTIAL CONTENT"
    assert answer.header(b"content-range") == b"bytes 70000-70009/1024000"
    assert answer.body == whole.body[70_000:70_010]


def test_a_small_file_is_sent_as_alone(sites):
    """A file of a few lines too, with its entity tag, and 304 to a client that has it."""
    answer, _ = same(sites, "/file/validated.py")
    assert answer.header(b"cache-control") == b"public, max-age=60"
    again, _ = same(sites, "/file/validated.py", b"If-None-Match: " + answer.header(b"etag"))
    assert again.status == b"HTTP/1.1 304 NOT MODIFIED"


@pytest.mark.parametrize("fail_at", ["0", "1", "3", "close", "never"])
def test_a_file_that_fails_is_closed(sites, fail_at):
    """A file in the server's wrapper that fails in read() or close() does so as alone, and is closed once."""
    answer, ran = same(sites, f"/wrapped/{fail_at}")
    assert ran.count("file closed") == 1
    assert answer.complete == (fail_at not in {"1", "3"})


@pytest.mark.parametrize("status", ["200", "403"])
@pytest.mark.parametrize("size", [100, 300_000])
def test_a_view_that_does_not_read_its_upload(sites, size, status):
    """An answer given before the upload was read, a refusal too, reaches the client."""
    answer, _ = same(sites, f"/unread?status={status}", method=b"POST", body=bytes(size))
    assert answer.body == b"unread\n"


def test_what_a_client_leaves_behind_is_closed_once(sites, gate):
    """When the client goes away the handler runs to its end, and its response is closed, once."""
    _, site = sites
    target = f"/gate?file={gate}".encode()
    with socket.create_connection(("127.0.0.1", site.web.port), timeout=10) as client:
        client.sendall(request(target, headers=(b"X-Tag: left-alone",)))
        got = b""
        while b"begun\n" not in got:
            got += client.recv(65_536)
    gate.touch()
    until(lambda: site.runs("left-alone") and ledger(site, "left-alone")[-1] == "closed", what="its close")
    assert ask(site.web, "/view").body == b"view\n"
    assert [line for line in ledger(site, "left-alone") if "_" not in line] == [
        "last chunk",
        "left",
        "closed",
    ]


def test_a_log_goes_to_the_process_that_runs_the_app(sites):
    """What Flask's logger writes to `wsgi.errors` stands in gunicorn's log alone, else in the worker's."""
    alone, site = sites
    line = re.compile(r"ERROR in wsgi_flask: logged for here$", re.MULTILINE)
    for web in (alone, site.web):
        assert ask(web, "/log", tag=b"here").body == b"logged\n"
    until(lambda: line.search(alone.output), what="the line alone")
    until(lambda: line.search(site.pool.output), what="the line in the worker's log")
    assert not line.search(site.web.output)


def test_a_thread_of_the_app_serves_its_handlers(sites):
    """A thread that was started at the import lives in the process that runs the handlers."""
    assert same(sites, "/thread/21")[0].body == b"42\n"
