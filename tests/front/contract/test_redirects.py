"""The redirects before an answer: where they lead, and who follows them."""

import http.client
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import requests
from contract_site import SLOW, WAIT, get
from harness import answer_of, ask, follow, raw_request
from result_urls import MARK, OURS, call_in, status_url

pytestmark = pytest.mark.usefixtures("nothing_is_left")

CLIENTS = {
    "curl": ["curl", "-sS", "-L"],
    "curl -d": ["curl", "-sS", "-L", "-d", "12345"],
    "curl -X POST": ["curl", "-sS", "-X", "POST", "-L", "-d", "12345"],
    "httpie": [Path(sys.executable).with_name("http"), "--follow", "--ignore-stdin", "GET"],
}


# -- the redirect


def test_a_slow_request_is_redirected_to_its_result_url(site, port):
    """After the wait the answer is an uncached 303 to the same URL, bytes kept, with our two parameters."""
    target = f"/slow?a&b=&=c&&x=%2F%zz&tag=exact&{SLOW}"
    started = time.monotonic()
    first = ask(port, target)
    assert time.monotonic() - started >= WAIT
    assert (first.status, first.reason) == (303, "See Other")
    origin = f"http://127.0.0.1:{port}"
    assert first.text == f"This request still runs. Its response will be at\n{origin}{first.location}\n"
    assert re.fullmatch(re.escape(target) + "&" + OURS, first.location)
    assert sorted(first.app_headers) == [
        ("Cache-Control", "no-store"),
        ("Content-Length", str(len(first.body))),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Link", f'<{status_url(first.location)}>; rel="monitor"'),
        ("Location", first.location),
        ("Referrer-Policy", "no-referrer"),
    ]
    *hops, last = follow(port, first.location)
    assert (last.status, last.text) == (200, "slow GET exact 0\n")
    assert len(site.runs("exact")) == 1
    numbers = [int(call_in(answer.location)[2]) for answer in (first, *hops)]
    assert numbers == list(range(1, len(hops) + 2))


def test_hops_count_up_on_one_call(port, gate):
    """Each redirect of a chain names the same call, and another hop."""
    chain = [ask(port, f"/gate?file={gate}")]
    for _ in range(2):
        chain.append(ask(port, chain[-1].location))
    calls = [call_in(answer.location) for answer in chain]
    assert {call[:2] for call in calls} == {calls[0][:2]}
    assert [call[2] for call in calls] == ["1", "2", "3"]


def test_the_longest_url_comes_back(port):
    """A request line as long as gunicorn takes by default is redirected to one that is taken too."""
    target = f"/slow?{SLOW}&filler="
    target += "x" * (4094 - len(f"GET {target} HTTP/1.1"))
    assert [answer.status for answer in follow(port, target)][-2:] == [303, 200]


def test_a_url_without_query_gets_one(port, busy):
    """A request without a query is redirected to its path with nothing but our parameters."""
    assert re.fullmatch(r"/fast\?" + OURS, ask(port, "/fast").location)


@pytest.mark.parametrize("client", CLIENTS)
def test_command_line_clients_follow_to_the_result(site, client, tmp_path):
    """curl, and httpie, end at the app's response, and the handler ran once."""
    tag = client.replace(" ", "")
    done = subprocess.run(
        [*CLIENTS[client], f"{site.url}/slow?tag={tag}&{SLOW}"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        env={**os.environ, "HTTPIE_CONFIG_DIR": str(tmp_path)},
    )
    posted = "12345" in CLIENTS[client]
    assert done.stdout == (f"slow POST {tag} 5\n" if posted else f"slow GET {tag} 0\n")
    assert len(site.runs(tag)) == 1


def test_a_body_that_is_posted_on_every_hop_is_dropped(site, tmp_path):
    """`curl -X POST -L` uploads again on each hop of one connection; only the first upload is used."""
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(300_000))
    done = subprocess.run(
        ["curl", "-sS", "-X", "POST", "-L", "--data-binary", f"@{upload}", f"{site.url}/slow?tag=big&{SLOW}"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout == "slow POST big 300000\n"
    assert len(site.runs("big")) == 1


@pytest.mark.parametrize(("method", "length"), [("GET", 0), ("POST", 5)])
def test_python_requests_follows_to_the_result(site, method, length):
    """A `requests` call ends at the app's response, and the handler ran once."""
    tag = f"requests{method}"
    data = b"x" * length or None
    answer = requests.request(method, f"{site.url}/slow?tag={tag}&{SLOW}", data=data, timeout=30)
    assert (answer.status_code, answer.text) == (200, f"slow {method} {tag} {length}\n")
    assert answer.history
    assert {hop.status_code for hop in answer.history} == {303}
    assert len(site.runs(tag)) == 1


def test_urllib_follows_to_the_result(site):
    """A `urllib.request` call ends at the app's response, and the handler ran once."""
    with urllib.request.urlopen(f"{site.url}/slow?tag=urllib&{SLOW}", timeout=30) as answer:
        assert (answer.status, answer.read()) == (200, b"slow GET urllib 0\n")
    assert len(site.runs("urllib")) == 1


def test_a_chain_runs_on_one_kept_alive_connection(site, port):
    """All hops of a chain can use one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        target, seen = f"/slow?tag=alive&{SLOW}", []
        while target:
            connection.request("GET", target)
            sock = connection.sock
            seen.append(answer_of(connection))
            assert connection.sock is sock
            target = seen[-1].location
    finally:
        connection.close()
    assert seen[-1].text == "slow GET alive 0\n"
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("//evil.example/x", "/evil.example/x"),
        ("///evil.example/x", "/evil.example/x"),
        ("/\\evil.example/x", "/evil.example/x"),
        ("http://evil.example/x", "/x"),
    ],
)
def test_a_location_stays_on_this_host(port, no_wait, target, path):
    """However a request's target begins, `Location` is a path that no client reads as another host."""
    answer = raw_request(no_wait.port, get(target)).decode()
    assert re.search(r"\r\nLocation: (\S+)", answer)[1].startswith(f"{path}?{MARK}call=")
    urls = json.loads(answer.partition("\r\n\r\n")[2])
    assert all(url.startswith(f"http://x{path}?{MARK}") for url in urls.values())


def test_a_303_stays_on_this_host(site, port, busy, gate):
    """`//evil.example/x` is redirected to a path here, where the app's own answer can be had."""
    location = ask(port, "//evil.example/x").location
    assert location.startswith(f"/evil.example/x?{MARK}call=")
    gate.touch()
    last = follow(port, location)[-1]
    assert (last.status, last.header("Content-Type")) == (404, "text/html; charset=utf-8")


def test_a_trusted_proxys_prefix_is_put_before_the_path(port):
    """`X-Forwarded-Prefix` of a trusted peer stands at the front of every Location of the chain."""
    headers = {"X-Forwarded-Prefix": "/prefix/"}
    first = ask(port, "/slow?seconds=1.5", headers=headers)
    assert first.location.startswith("/prefix/slow?seconds=1.5&")
    # The proxy takes it off again.
    second = ask(port, first.location.removeprefix("/prefix"), headers=headers)
    assert second.location.startswith("/prefix/slow?seconds=1.5&")
    last = follow(port, second.location.removeprefix("/prefix"))[-1]
    assert last.text == "slow GET  0\n"


def test_a_prefix_cannot_name_another_host(port, no_wait):
    """A prefix that looks like a host stays a path."""
    answer = ask(no_wait.port, "/fast", headers={"X-Forwarded-Prefix": "//evil.example"})
    assert answer.location.startswith("/evil.example/fast?")


def test_an_untrusted_peers_prefix_is_ignored(strict):
    """`X-Forwarded-Prefix` of anybody else changes nothing."""
    first = ask(strict.port, f"/slow?{SLOW}", headers={"X-Forwarded-Prefix": "/prefix"})
    assert first.location.startswith("/slow?")
