"""Each oddity of PEP 3333 as an app's handler: served through jobs it is what it is under gunicorn alone."""

import json
import socket

import pytest
from harness import until
from wire import exchange, parse, request

GET = (
    "too-late-head",
    "two-heads",
    "writes",
    "headers",
    "generated-headers",
    "changed-headers",
    "hop-by-hop",
    "refused-status",
    "bare-status",
    "a-list",
    "a-tuple",
    "a-set-of-one",
    "a-generator",
    "a-sequence",
    "an-iterable",
    "a-file",
    "a-wrapped-file",
    "an-empty-list",
    "empty-chunks",
    "none",
    "chunks-of-text",
    "file-wrapper",
    "short-body",
    "short-stream",
    "long-body",
    "spaced-length",
    "fails-after-all",
    "no-content",
    "not-modified",
    "bodiless-fails",
    "raises",
    "raises-after-head",
    "raises-at-first",
    "raises-in-the-middle",
    "raises-at-the-end",
    "raises-in-close",
    "raises-after-write",
    "raises-in-iter",
    "file-fails-at-once",
    "file-fails-later",
    "file-fails-in-close",
    "ticks",
)
#: The body decides over these: its first line, a short one, and no line break at the end.
READS = ("reads", "reads-late", "reads-part", "reads-nothing", "seeks", "echo")
BODY = b"first line\nxy\nthe third line\n\nand the rest"


@pytest.fixture(scope="module")
def sites(both):
    return both("wsgi_odd:app", pool=("--processes", "1"), wait_seconds=20)


@pytest.fixture(scope="module")
def quick(sites):
    """A second gunicorn before the same workers, which redirects soon."""
    web = sites[1].start_web(gateway="wait_seconds=0.2")
    yield web
    web.stop()


def ask(web, name, *, method=b"GET", target=b"/odd?a=1", headers=(), body=b"", version=b"1.1"):
    data = request(target, method, (b"X-Odd: " + name.encode(), *headers), body, version)
    return parse(exchange(web.port, data), head=method == b"HEAD")


def same(sites, name, **options):
    """Return the answer through jobs, which must be the one of gunicorn alone."""
    alone, site = sites
    expected = ask(alone, name, **options)
    answer = ask(site.web, name, **options)
    assert answer == expected
    return answer


@pytest.mark.parametrize("name", GET)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"], ids=["GET", "HEAD"])
def test_an_oddity_is_what_gunicorn_alone_sends(sites, method, name):
    """Status line, headers, body, and whether it is whole, are those of the app under gunicorn alone."""
    same(sites, name, method=method)


@pytest.mark.parametrize("name", GET)
def test_an_old_client_gets_what_gunicorn_alone_sends(sites, name):
    """A client of HTTP/1.0, which knows no chunks, gets the same bytes."""
    same(sites, name, version=b"1.0")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("name", READS)
def test_a_body_is_read_as_under_gunicorn_alone(sites, name, chunked):
    """Every way to read a body gives the same pieces, and its end comes as often as one reads past it."""
    if chunked:
        body = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in BODY.splitlines(True)) + b"0\r\n\r\n"
        same(sites, name, method=b"POST", headers=(b"Transfer-Encoding: chunked",), body=body)
    else:
        same(sites, name, method=b"POST", headers=(b"Content-Length: %d" % len(BODY),), body=BODY)


@pytest.mark.parametrize("name", READS)
def test_a_large_body_is_read_as_under_gunicorn_alone(sites, name):
    """A body that travels as a stream is read in the same pieces."""
    body = BODY + b"\n" + BODY * 1_600
    answer = same(sites, name, method=b"POST", headers=(b"Content-Length: %d" % len(body),), body=body)
    assert answer.complete


@pytest.mark.parametrize("name", READS)
def test_an_empty_body_is_read_as_under_gunicorn_alone(sites, name):
    """Without a body each read is empty at once."""
    same(sites, name)
    same(sites, name, method=b"POST", headers=(b"Content-Length: 0",))


#: Where gunicorn alone does not keep to PEP 3333: it sends the head with an empty chunk, or none, and
#: keeps the headers of a head that was replaced.
PLAIN = ((b"Connection", b"close"), (b"Transfer-Encoding", b"chunked"), (b"Content-Type", b"text/plain"))
BETTER = {
    "lazy": (b"HTTP/1.1 200 OK", PLAIN, b"lazy"),
    "late-head": (b"HTTP/1.1 503 Replaced", (*PLAIN, (b"X-New", b"1")), b"replaced"),
}


@pytest.mark.parametrize("name", BETTER)
def test_the_head_waits_for_the_first_byte(sites, name):
    """An empty chunk sends no head, and a head that was not sent can be replaced, headers and all."""
    answer = ask(sites[1].web, name)
    assert (answer.status, answer.headers, answer.body) == BETTER[name]


def test_bad_headers_are_refused_where_the_app_sees_it(sites):
    """start_response raises for the same headers as under gunicorn alone, and the app goes on."""
    alone, site = sites
    refused = ask(site.web, "refused-header")
    assert refused.body == ask(alone, "refused-header").body
    assert refused.body.count(b";") == 8
    assert refused.headers == PLAIN


@pytest.mark.parametrize(
    "name", ["text", "body-without-head", "no-head", "interim", "raises-os-error", "raises-system-exit"]
)
def test_a_broken_app_has_no_answer_but_500(sites, name):
    """What PEP 3333 forbids is a 500 before the head, where gunicorn alone sends part of a response."""
    _, site = sites
    assert ask(site.web, name).status == b"HTTP/1.1 500 Internal Server Error"


@pytest.mark.parametrize("name", ["short-body", "short-stream"])
def test_a_short_body_breaks_off(sites, name):
    """A body shorter than announced ends its connection at once, which would else be kept alive."""
    data = b"GET / HTTP/1.1\r\nHost: x\r\nX-Odd: %b\r\n\r\n" % name.encode()
    answer = parse(exchange(sites[1].web.port, data, timeout=3))
    assert (answer.status, answer.complete) == (b"HTTP/1.1 200 OK", False)
    assert answer.body.startswith(b"short")


def test_the_environ_is_of_this_process(sites):
    """The process describes itself: one thread, several processes, not once; only exact types."""
    _, site = sites
    answer = json.loads(
        ask(site.web, "process", headers=(b"Content-Type: a/b", b"Content-Length: 0", b"Proxy: x")).body
    )
    assert answer["exact"] is True
    told = {key: value for key, value in answer.items() if key.startswith("wsgi.")}
    for key in ("wsgi.input", "wsgi.errors", "wsgi.file_wrapper"):
        assert told.pop(key)
    assert told == {
        "wsgi.version": [1, 0],
        "wsgi.url_scheme": "http",
        "wsgi.input_terminated": True,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    types = answer["types"]
    assert types.pop("wsgi.version") == "tuple"
    assert {key for key, kind in types.items() if kind != "str" and "." not in key} == set()
    assert not [key for key in types if key.startswith(("gunicorn.", "werkzeug.", "wsgi.early"))]


def test_each_run_has_an_environ_of_its_own(sites):
    """What a handler does to its environ, no other call sees."""
    _, site = sites
    assert [ask(site.web, "changes-environ").body for _ in range(2)] == [b"[]", b"[]"]


def test_errors_go_to_the_workers_log(sites):
    """`wsgi.errors` is the worker's output, with write, writelines and flush."""
    _, site = sites
    assert ask(site.web, "writes-errors").body == b"written"
    until(lambda: "written to wsgi.errors\n" in site.pool.output, what="the line in the log")


def test_an_app_sets_up_its_own_logging(sites):
    """The root logger is the app's: its basicConfig() holds in the worker as it does under gunicorn alone."""
    alone, site = sites
    for web in (alone, site.web):
        assert ask(web, "logs", target=b"/?the-app").body == b"logged"
    for process in (alone, site.pool):
        until(lambda p=process: "\nINFO of the app: logged for the-app\n" in p.output, what="the app's line")
    assert " of the app: worker " not in site.pool.output


def test_close_is_called_once(sites):
    """However a response ends, its iterable is closed, and once."""
    _, site = sites
    names = {
        *("closes", "raises-at-first", "raises-in-the-middle", "raises-at-the-end", "raises-in-close"),
        *("raises-in-iter", "file-fails-at-once", "file-fails-later", "file-fails-in-close"),
    }

    def counts():
        return json.loads(ask(site.web, "closed").body)

    before = counts()
    for name in sorted(names):
        ask(site.web, name)
        ask(site.web, name, method=b"HEAD")
    after = counts()
    assert {name: after.get(name, 0) - before.get(name, 0) for name in names} == dict.fromkeys(names, 2)


def test_a_head_of_an_endless_body_comes_at_once(sites, gate):
    """HEAD of a stream of events is answered with its first byte, not at the end that never comes."""
    data = request(b"/?" + str(gate).encode(), b"HEAD", (b"X-Odd: endless",))
    with socket.create_connection(("127.0.0.1", sites[1].web.port), timeout=10) as client:
        client.sendall(data)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += client.recv(65536)
    assert parse(answer, head=True).status == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("chain", [False, True], ids=["at once", "behind redirects"])
def test_events_reach_the_client_before_the_next_is_made(sites, quick, tmp_path, chain):
    """Each event is at the client while the app has not made the next one, also on a result URL."""
    port = quick.port if chain else sites[1].web.port
    target = b"/events?" + str(tmp_path).encode()
    if chain:
        for _ in range(2):
            answer = parse(exchange(port, request(target, headers=(b"X-Odd: events",))))
            assert answer.status == b"HTTP/1.1 303 See Other"
            target = answer.header(b"location")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request(target, headers=(b"X-Odd: events",)))
        got = b""
        for number in range(3):
            (tmp_path / str(number)).touch()
            while b"data: %d\n\n" % number not in got:
                piece = client.recv(65536)
                assert piece, got
                got += piece
            assert b"data: %d" % (number + 1) not in got
        while piece := client.recv(65536):
            got += piece
    assert parse(got).complete
