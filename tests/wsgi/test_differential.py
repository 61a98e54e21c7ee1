"""Generated requests to generated handlers: gunicorn alone and through jobs the answers are the same."""

import json
import re

import pytest
from harness import APPS, Gunicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from wire import exchange, parse, request

#: A failure is shown as it was found: to make it smaller takes thousands of requests more.
COMMON = settings(deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
QUICK = settings(COMMON, derandomize=True, max_examples=200)
LONG = settings(COMMON, max_examples=2_000)

METHODS = st.sampled_from(
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND", b"TRACE", b"M-SEARCH"]
)
#: A byte of a path or query, as it is or percent-encoded.
RAW = st.integers(0x21, 0x7E).filter(lambda byte: byte != ord("#")).map(lambda byte: bytes([byte]))
ENCODED = st.integers(0, 255).map(lambda byte: b"%%%02X" % byte)
PIECE = st.one_of(
    RAW, ENCODED, st.sampled_from([b"/", b"//", b";", b"%2F", b"%", b"%zz", b"..", b"a", b"+", b"~", b"?"])
)
PATH = st.lists(PIECE, max_size=12).map(lambda pieces: b"/" + b"".join(pieces).replace(b"?", b"%3F"))
QUERY = st.one_of(
    st.just(b""),
    st.just(b"?"),
    st.just(b"?a&b=&=c&&"),
    st.lists(st.one_of(PIECE, st.sampled_from([b"&", b"=", b"a=1"])), max_size=12).map(
        lambda pieces: b"?" + b"".join(pieces)
    ),
)
NAME = st.sampled_from(
    [b"Accept", b"X-A", b"x-b", b"Cookie", b"Referer", b"Range", b"Content-Type", b"Proxy"]
)
VALUE = st.binary(max_size=12).map(
    lambda value: bytes(byte for byte in value if byte >= 0x20 and byte != 0x7F)
)
#: Bytes, and how often they are repeated.
BODY = st.one_of(
    st.tuples(st.binary(max_size=300), st.just(1)),
    st.tuples(st.just(b"0123456789\n"), st.integers(6_000, 18_000)),
)
#: How a body is framed, the body, and the bytes of one chunk.
FRAMING = st.tuples(
    st.sampled_from(["none", "length", "chunked"]), BODY, st.one_of(st.integers(5, 50), st.just(50_000))
)


def framed(kind, body, size):
    """Return the header and the bytes of a request body."""
    data, times = body
    data *= times
    if kind == "none":
        return [], b""
    if kind == "length":
        return [b"Content-Length: %d" % len(data)], data
    size = max(size, len(data) // 1_000)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return [b"Transfer-Encoding: chunked"], chunks + b"0\r\n\r\n"


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=["Cc"]), max_size=15)
#: What an app may answer; the reason, the names and the values are latin-1 text.
STATUS = st.tuples(st.sampled_from([200, 201, 204, 206, 299, 301, 304, 404, 418, 500, 599]), TEXT).map(
    lambda pair: f"{pair[0]} {pair[1]}"
)
HEADER = st.tuples(
    st.sampled_from(["Set-Cookie", "x-odd", "Vary", "Connection", "ETag", "Transfer-Encoding"]), TEXT
).filter(lambda pair: pair != ("Connection", "upgrade"))
CHUNK = st.tuples(TEXT, st.sampled_from([0, 1, 1, 1, 500, 20_000]))


@st.composite
def programs(draw):
    """Return what a handler does."""
    chunks = draw(st.lists(CHUNK, max_size=4))
    fail = draw(st.sampled_from([None, None, "before", "after", "close", 0, 1, 2]))
    return {
        "read": draw(st.sampled_from(["all", "lines", "some", "nothing"])),
        "status": draw(STATUS),
        "headers": [["Content-Type", "text/plain"], *draw(st.lists(HEADER, max_size=4))],
        # None: no Content-Length; else how much more, or less, than there is is announced.
        "length": draw(st.sampled_from([None, None, 0, 0, 3])),
        "writes": draw(st.booleans()) if fail in {None, "close"} else False,
        "kind": draw(st.sampled_from(["list", "sequence", "iterable"])),
        "fail": fail,
        "chunks": chunks,
    }


@pytest.fixture(scope="module")
def sites(both):
    return both("wsgi_odd:app", pool=("--processes", "2"), wait_seconds=20, max_request_body=10_000_000)


@pytest.fixture(scope="module")
def checked(both):
    """The same, checked by wsgiref.validate and WebTest's lint: around the app, and around the front."""
    alone, site = both("wsgi_checked:app", pool=("--processes", "2"), wait_seconds=20)
    spec = f"wsgi_checked:front({site.target!r}, {site.name!r})"
    web = Gunicorn(spec, site.redis.url, env=site.env, cwd=APPS)
    yield alone, web, site
    web.stop()


def answers(ports, data, *, head):
    return [parse(exchange(port, data), head=head) for port in ports]


def compare(ports, method, target, headers, framing, program):
    fields, body = framed(*framing)
    fields = [*headers, *fields]
    if program:
        fields.append(b"X-Odd: program")
        fields.append(b"X-Program: " + json.dumps(program).encode())
    data = request(target, method, fields, body)
    alone, ours = answers(ports, data, head=method == b"HEAD")
    assert ours == alone, data[:2_000]
    return ours


def lines(headers):
    return [name + b": " + value for name, value in headers]


HEADERS = st.lists(st.tuples(NAME, VALUE), max_size=4).map(lines)


#: The share of the generated requests that must reach the app: gunicorn may refuse a few by itself.
REACHED = 0.9
#: What gunicorn refuses before an app sees it: a byte in a target, a method, a header, a framing.
REFUSED = st.one_of(
    st.tuples(PATH, st.sampled_from([0x01, 0x0B, *range(0x7F, 0x100)]), QUERY).map(
        lambda parts: request(parts[0] + bytes([parts[1]]) + parts[2])
    ),
    st.sampled_from([b"G", b"get", b"GE T", b"G@T", b"GET,POST", b"A" * 30]).map(
        lambda method: request(b"/", method)
    ),
    st.sampled_from(
        [
            b"X A: 1",
            b"X-A",
            b": 1",
            b"X-A : 1",
            b"X-A: \x00",
            b"X-A: \x01",
            b"X-A: 1\rX: 2",
            b" X-A: 1",
            b"X\xff: 1",
        ]
    ).map(lambda header: request(headers=(header,))),
    st.sampled_from(
        [
            (b"Content-Length: 1", b"Content-Length: 2"),
            (b"Content-Length: -1",),
            (b"Content-Length: 0x1",),
            (b"Content-Length: 1", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: chunked, chunked",),
            (b"Transfer-Encoding: odd",),
        ]
    ).map(lambda headers: request(b"/", b"POST", headers, b"0\r\n\r\n")),
    st.sampled_from([b"1.2", b"2.0", b"0.9", b"x"]).map(lambda version: request(version=version)),
    st.sampled_from([b"x", b"*", b"", b"http://[x/"]).map(request),
)


def echoes(sites, examples):
    """Compare the environ and the body that a handler is given, told by itself; returns who reached it."""
    ports, reached = (sites[0].port, sites[1].web.port), []

    @given(METHODS, st.tuples(PATH, QUERY).map(b"".join), HEADERS, FRAMING)
    @examples
    def check(method, target, headers, framing):
        answer = compare(ports, method, target, headers, framing, None)
        reached.append(answer.status == b"HTTP/1.1 200 OK")

    check()
    return reached


def programmed(ports, method, framing, program):
    if framing[1][1] > 1:
        # A server that closes with much unread resets the connection, and what it has sent is lost.
        program = {**program, "read": "all" if program["read"] == "all" else "lines"}
    compare(ports, method, b"/program?x=1", [], framing, program)


def test_a_handler_is_asked_what_it_is_asked_alone(sites):
    """Whatever a client sends, the handler sees the environ and the body that it sees without jobs."""
    reached = echoes(sites, settings(QUICK, max_examples=400))
    assert len(reached) >= 300
    assert sum(reached) >= REACHED * len(reached)


@given(REFUSED)
@settings(QUICK, max_examples=100)
def test_what_gunicorn_refuses_is_refused_alike(sites, data):
    """What is no request never reaches an app: the same refusal, alone and through jobs."""
    alone, site = sites
    expected, ours = answers((alone.port, site.web.port), data, head=False)
    assert ours == expected
    assert not ours.status.startswith(b"HTTP/1.1 2")


@given(METHODS, FRAMING, programs())
@QUICK
def test_a_handler_answers_what_it_answers_alone(sites, method, framing, program):
    """Whatever a handler does, status line, headers and body are the same, and a break-off is one."""
    alone, site = sites
    programmed((alone.port, site.web.port), method, framing, program)


@given(METHODS, FRAMING, programs())
@settings(QUICK, max_examples=40)
def test_both_halves_keep_to_pep_3333(checked, method, framing, program):
    """With validators on both sides the answers are the same, and no validator has a word to say."""
    alone, web, _ = checked
    # What the checks forbid is left out: empty reasons, odd headers, bodies where none may be.
    bodiless = program["status"][:3] in {"204", "304"}
    program = {**program, "status": program["status"][:4] + "Reason", "writes": False}
    program["kind"] = program["kind"].replace("sequence", "iterable")  # lint knows no __getitem__
    program["headers"] = [] if bodiless else program["headers"][:1]
    if bodiless:
        program |= {"length": None, "chunks": [], "read": "nothing"}
    programmed((alone.port, web.port), method, framing, program)


def test_no_validator_complained(checked):
    """Neither the web process nor a worker has logged a breach of PEP 3333 so far."""
    alone, web, site = checked
    for output in (web.output, site.pool.output, alone.output):
        assert re.findall(r"(?:AssertionError|WSGIWarning).*", output) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_handler_is_asked_what_it_is_asked_alone_at_length(sites):
    """The same with two thousand requests, other ones in each run."""
    reached = echoes(sites, LONG)
    assert sum(reached) >= REACHED * len(reached)


@pytest.mark.slow
@pytest.mark.timeout(600)
@given(METHODS, FRAMING, programs())
@LONG
def test_a_handler_answers_what_it_answers_alone_at_length(sites, method, framing, program):
    """The same with two thousand handlers, other ones in each run."""
    alone, site = sites
    programmed((alone.port, site.web.port), method, framing, program)


@pytest.mark.parametrize(
    "target",
    [
        b"*",
        b"http://other.example/a%2Fb?x",
        b"/a%2fb;c/%00/%0a?a&b=&=c&&#f",
        b"//host/path",
        b"/\xff\xfe?\xff",
    ],
)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_odd_targets(sites, target, version):
    """A target of another form than a path and a query is told alike."""
    alone, site = sites
    method = b"OPTIONS" if target == b"*" else b"GET"
    data = request(target, method, version=version)
    expected, ours = answers((alone.port, site.web.port), data, head=False)
    assert ours == expected


def test_requests_on_one_connection(sites):
    """Requests that follow each other on one connection, bodies unread, are answered in their order."""
    first = b"POST /1 HTTP/1.1\r\nHost: x\r\nX-Odd: %b\r\nContent-Length: 30000\r\n\r\n" + bytes(30_000)
    data = b"".join(first % name for name in (b"echo", b"reads-part", b"reads-nothing"))
    data += request(b"/last")
    raw = [exchange(web, data) for web in (sites[0].port, sites[1].web.port)]
    alone, ours = (re.sub(rb"(Date|Server): [^\r]*\r\n", b"", answer) for answer in raw)
    assert ours == alone
    assert ours.count(b"HTTP/1.1 200 OK") == 4
