"""Falcon, Pyramid, Bottle, WhiteNoise, Socket.IO and middleware answer as they do alone."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
from harness import ask
from wire import exchange, parse, request

PATHS = [
    "/falcon/things?a=1&a=2&b=%C3%A9",
    "/falcon/large",
    "/falcon/static/style.css",
    "/falcon/none",
    "/pyramid/urls?x=1",
    "/pyramid//urls",
    "/pyramid/pieces",
    "/pyramid/conditional",
    "/pyramid/large",
    "/pyramid/static/style.css",
    "/bottle/pieces/0",
    "/bottle/pieces/3",
    "/bottle/file/large.bin",
    "/bottle/none",
    "/whitenoise/style.css",
    "/whitenoise/large.bin",
    "/whitenoise/none",
    "/flask/urls",
    "/flask/slash",
    "/counting/text",
    "/counting/stream",
    "/zipping/text",
    "/within",
    "/no-file",
]
METHODS = [b"GET", b"HEAD", b"OPTIONS"]
HEADERS = [
    (),
    (b"Accept-Encoding: gzip",),
    (b"Range: bytes=10-19",),
    (b'If-None-Match: "large"',),
    (b"If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT",),
]
FORM = b"".join(
    b'--B\r\nContent-Disposition: form-data; name="%b\r\n\r\n%b\r\n' % part
    for part in [(b'a"', b"1"), (b'f"; filename="x"\r\nContent-Type: a/b', b"z" * 200_000)]
)
MULTIPART = b"Content-Type: multipart/form-data; boundary=B"
#: Where a body is sent, its type, and the body.
BODIES = [
    ("/falcon/things", b"Content-Type: a/b", b"x" * 100),
    ("/falcon/things", b"Content-Type: a/b", b"y" * 200_000),
    ("/falcon/form", MULTIPART, FORM + b"--B--\r\n"),
    ("/pyramid/seekable", b"Content-Type: a/b", b"x" * 100),
    ("/pyramid/seekable", b"Content-Type: a/b", b"y" * 200_000),
    ("/bottle/form", MULTIPART, FORM + b"--B--\r\n"),
    ("/bottle/body", b"Content-Type: a/b", b"y" * 200_000),
    ("/flask/form", MULTIPART, FORM + b"--B--\r\n"),
    ("/flask/form", MULTIPART, FORM),
    ("/flask/form", b"Content-Type: application/x-www-form-urlencoded", b"a=1&b=%C3%A9&a=2"),
    ("/flask/limited", b"Content-Type: a/b", b"line one\nline two\n" * 10),
    ("/flask/whole", b"Content-Type: a/b", b"y" * 70_000),
    ("/flask/small", b"Content-Type: a/b", b"x" * 100),
    ("/flask/small", b"Content-Type: a/b", b"x" * 100_000),
    ("/whitenoise/style.css", b"Content-Type: a/b", b"x"),
]


@pytest.fixture(scope="module")
def sites(both):
    """One worker process with threads: Socket.IO keeps its sessions in the process."""
    return both("wsgi_frameworks:app", pool=("--processes", "1", "--threads", "4"), wait_seconds=30)


def _in_order(match):
    return b", ".join(sorted(match[0].split(b", ")))


def same(sites, data, *, head=False):
    """Return the answer through jobs, which must be the one alone, but for the address and the time."""
    answers = []
    for web in (sites[0], sites[1].web):
        # How a body was cut into chunks is nobody's affair: the parser looks behind a 100 too.
        raw = exchange(web.port, data).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        raw = re.sub(rb"\r\n(Date|Expires): [^\r]*", b"", raw)
        raw = re.sub(
            rb"(?<=\r\nAllow: )[^\r]*", _in_order, raw
        )  # Flask's is a set, in the order of its hashes
        answers.append(parse(raw.replace(b"127.0.0.1:%d" % web.port, b"here"), head=head))
    assert answers[1] == answers[0], data[:500]
    return answers[1]


@pytest.mark.parametrize("path", PATHS)
def test_it_answers_as_alone(sites, path):
    """Methods, ranges, conditions and encodings are answered as alone, to clients new and old."""
    for method, headers, version in product(METHODS, HEADERS, (b"1.1", b"1.0")):
        same(sites, request(path.encode(), method, headers, version=version), head=method == b"HEAD")


@pytest.mark.parametrize(
    "number", range(len(BODIES)), ids=[f"{path}-{len(body)}" for path, _, body in BODIES]
)
def test_a_body_is_taken_as_alone(sites, number):
    """A body with a length, one that waits for 100-continue, and a chunked one are read as alone."""
    path, kind, body = BODIES[number]
    length = b"Content-Length: %d" % len(body)
    chunks = b"".join(b"3e8\r\n%b\r\n" % body[at : at + 1000] for at in range(0, len(body) - 999, 1000))
    rest = body[len(body) // 1000 * 1000 :]
    chunks += (b"%x\r\n%b\r\n" % (len(rest), rest) if rest else b"") + b"0\r\n\r\n"
    for method in (b"POST", b"PUT", b"DELETE"):
        same(sites, request(path.encode(), method, (kind, length), body))
        same(sites, request(path.encode(), method, (kind, length, b"Expect: 100-continue"), body))
        same(sites, request(path.encode(), method, (kind, b"Transfer-Encoding: chunked"), chunks))


def test_socket_io_polls(sites):
    """A Socket.IO client without WebSocket: its long poll is answered by what its post brings."""
    port = sites[1].web.port
    opened = ask(port, "/socket.io/?EIO=4&transport=polling")
    url = f"/socket.io/?EIO=4&transport=polling&sid={json.loads(opened.body[1:])['sid']}"
    assert ask(port, url, "POST", body=b"40").text == "OK"
    assert ask(port, url).text.startswith("40")
    with ThreadPoolExecutor(1) as threads:
        polled = threads.submit(ask, port, url)
        assert ask(port, url, "POST", body=b'42["question",{"a":1}]').text == "OK"
        assert polled.result().text == '42["answer",{"a":1}]'
