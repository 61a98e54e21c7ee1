"""A browser's download that goes on: its request follows no redirect, and gets its bytes nevertheless."""

import socket

import pytest
from harness import ask, raw_request, until
from result_urls import ready_result, status_url

pytestmark = pytest.mark.slow

#: What Chromium sends, and what it sends on plain http to another machine.
PLAIN = {"Range": "bytes=395-", "If-Range": '"v1"', "User-Agent": "Mozilla/5.0"}
SECURE = {**PLAIN, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "empty", "Accept": "*/*"}
#: More than one wait, and far less than twenty.
SLOW = "seconds=1"


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        "addresses:app", pool=("--processes", "2"), wait_seconds=0.5, buffer=300_000, max_result=300_000
    )


@pytest.mark.parametrize("headers", [PLAIN, SECURE], ids=["plain http", "https"])
def test_it_waits_longer(site, headers):
    """It is not redirected after one wait."""
    answer = ask(site.web.port, f"/copy?{SLOW}", headers=headers)
    assert (answer.status, answer.body) == (206, b"56789")


def test_a_programs_range_is_redirected(site):
    """Programs follow redirects."""
    assert ask(site.web.port, f"/copy?{SLOW}", headers={**PLAIN, "User-Agent": "curl"}).status == 303


def test_whoever_was_cut_off_joins_its_call(site, tmp_path):
    """A proxy closes the connection; the person's next try gets the answer of the same run."""
    gate, port = tmp_path / "gate", site.web.port
    target = f"/copy?tag=cut&file={gate}"
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{key}: {value}" for key, value in SECURE.items()),
    ]
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        until(lambda: site.runs("cut-GET"), what="the run")
    until(lambda: any(site.redis.client.hget(note, "gone") for note in site.noted()), what="the note")
    gate.touch()
    answer = raw_request(port, "\r\n".join([*lines, "Connection: close", "", ""]).encode())
    assert answer.startswith(b"HTTP/1.1 206")
    assert answer.endswith(b"56789")
    assert len(site.runs("cut-GET")) == 1


def test_a_result_that_is_half_gone_is_gone_on_with_by_the_app(site):
    """Of a large download that broke off with its client, the app is asked for the rest."""
    port = site.web.port
    result = ask(port, f"/copy?times=5000&tag=large&{SLOW}").location
    until(lambda: ask(port, status_url(result)).json["ready"], what="its beginning")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(f"GET {result} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        taken = 0
        while taken < 1_200_000:
            piece = sock.recv(65536)
            assert piece
            taken += len(piece)
    rest = {"Range": "bytes=1999990-", "If-Range": '"v1"'}
    for headers in (rest, {**SECURE, **rest}):
        # Without a redirect: a browser would not follow it, and wget would ask for the whole again.
        answer = ask(port, result, headers=headers)
        assert (answer.status, answer.body) == (206, b"0123456789")
    assert answer.header("Cache-Control") == "private, no-store"
    assert len(site.runs("large-GET")) == 3


def test_what_broke_off_in_the_app_goes_on_in_place(site):
    """On the result URL of a response that the app broke off, a browser's range is run at once."""
    port = site.web.port
    result = ready_result(port, f"/fails?tag=place&how=2&{SLOW}")
    raw_request(port, f"GET {result} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = until(
        lambda: (a := ask(port, result, headers=SECURE)).status == 200 and len(a.body) == 400 and a
    )
    assert answer.header("Location") is None
