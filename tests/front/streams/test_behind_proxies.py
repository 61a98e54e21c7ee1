"""Ninety events through nginx and HAProxy that cut what is silent, cut at random, over a deploy.

`TESTS_FULL_TIMES=1` runs it at the limits that proxies have in production, in three minutes.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import sseclient
from chromium import start_chromium
from harness import ROOT, Process, is_missing, until
from links import Breaking

EVENTS = 90
EXPECTED = [f"{n} " for n in range(EVENTS)]
#: Where `npm install --prefix` puts the package `eventsource`: see the Makefile.
EVENTSOURCE = Path(sys.prefix) / "node_modules" / "eventsource"


@dataclass(frozen=True)
class Times:
    """Seconds."""

    between_events: float
    silence: float
    nginx: int
    haproxy: int
    wait: float
    keepalive: float


SHORT = Times(0.12, 6, nginx=4, haproxy=3, wait=1.2, keepalive=0.5)
FULL = Times(1, 70, nginx=60, haproxy=30, wait=25, keepalive=15)
TIMES = FULL if os.environ.get("TESTS_FULL_TIMES") else SHORT


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def recipe(name, folder, port, behind, limit):
    """Write a recipe of deploy/ for ports and a limit of this test; one of its two web processes is away."""
    text = (ROOT / "deploy" / name).read_text()
    for before, after in {
        "60s": f"{limit}s",
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8000": f"127.0.0.1:{behind}",
        "127.0.0.1:8001": f"127.0.0.1:{free_port()}",
        "access_log /dev/stdout private": "access_log off",
        "events {}": f"daemon off; pid {folder}/{port}.pid; events {{}}",
    }.items():
        text = text.replace(before, after)
    path = folder / f"{port}-{name}"
    path.write_text(text)
    return path


@pytest.fixture
def site(deploy):
    return deploy(
        "clients_site:app",
        pool=("--processes", "5", "--graceful-timeout", "200"),
        gateway="except_=['/page', '/client.mjs']",
        wait_seconds=TIMES.wait,  # less than each proxy's limit
        event_streams="resumable",
        keepalive_seconds=TIMES.keepalive,
    )


@pytest.fixture
def proxies(site, tmp_path):
    """The ports of nginx, of HAProxy, and of another nginx behind which is that HAProxy."""
    for program in ("nginx", "haproxy"):
        if not shutil.which(program):
            is_missing(program)
    nginx, haproxy, both = ports = free_port(), free_port(), free_port()
    files = (
        recipe("nginx.conf", tmp_path, nginx, site.web.port, TIMES.nginx),
        recipe("haproxy.cfg", tmp_path, haproxy, site.web.port, TIMES.haproxy),
        recipe("nginx.conf", tmp_path, both, haproxy, TIMES.nginx),
    )
    running = [
        Process(
            ["haproxy", "-db", "-f", path] if path.suffix == ".cfg" else ["nginx", "-e", "stderr", "-c", path]
        )
        for path in files
    ]
    until(lambda: all(map(listens, ports)), what="the proxies")
    yield ports
    for process in running:
        process.stop()


def in_python(url):
    """Read with sseclient, coming back with the last id as an EventSource does."""
    seen, last = [], ""
    while True:
        try:
            headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
            headers |= {"Last-Event-ID": last} if last else {}
            answer = requests.get(url, stream=True, headers=headers, timeout=90)
            if answer.status_code != 200:
                assert answer.status_code == 204
                return seen
            for event in sseclient.SSEClient(answer).events():
                seen.append(event.data.replace("\n", " "))
                last = event.id or last
        except requests.RequestException:
            pass
        time.sleep(0.1)


def in_node(url, tag):
    """Read with our client, or with the package `eventsource`."""
    node = shutil.which("node") or is_missing("node")
    ours = (ROOT / "clients/wsgi_timeout_client.mjs", "events")
    client = (EVENTSOURCE / "dist/index.js", tag) if tag == "eventsource" else ours
    command = [node, ROOT / "tests/clients/check.mjs", *client, url]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [data.replace("\n", " ") for data in json.loads(done.stdout)["seen"]]


IN_BROWSER = """
window.seen = [];
window.source = new EventSource(arguments[0]);
source.addEventListener("token", (event) => seen.push(event.data.replace("\\n", " ")));
"""


class Tabs:
    """Tabs of a Chromium, each with an EventSource of its own."""

    def __init__(self, folder):
        self.browser = start_chromium(folder)
        self.tabs = []

    def open(self, urls, *tags):
        """Read streams, each by an EventSource in a tab; returns their tags."""
        for tag in tags:
            self.browser.switch_to.new_window("tab")
            self.browser.get(urls[tag].partition("/events")[0] + "/page")
            self.browser.execute_script(IN_BROWSER, urls[tag])
            self.tabs.append(self.browser.current_window_handle)
        return tags

    def seen(self):
        """Return what each tab has seen, once its EventSource has closed."""
        found = []
        for tab in self.tabs:
            self.browser.switch_to.window(tab)
            until(lambda: self.browser.execute_script("return source.readyState == 2"), 60, "the end")
            found.append(self.browser.execute_script("return seen"))
        return found


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_each_event_once_whatever_happens(site, proxies, tmp_path):
    """Over cuts, silence, a web process that is away and another pool each event comes once, of one run."""
    rolls = random.Random(18)
    nginx, haproxy, both = proxies
    readers = {"python": both, "node": haproxy, "nginx-tab": nginx, "haproxy-tab": haproxy}
    readers |= {"eventsource": both} if EVENTSOURCE.exists() else {}
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        links = {tag: Breaking(port) for tag, port in readers.items()}
        url = {
            tag: f"http://127.0.0.1:{link.port}/events?count={EVENTS}&folder={tmp_path}&tag={tag}"
            for tag, link in links.items()
        }
        for link in links.values():
            stack.callback(link.close)
        # Who has no id yet begins anew after a cut, or an end: the first event is there from the start.
        (tmp_path / "0").touch()
        tabs = Tabs(tmp_path / "chromium")
        stack.callback(tabs.browser.quit)
        # Without TLS a browser takes a head that was cut for a whole one: it is cut between events.
        in_tabs = [links[tag] for tag in tabs.open(url, "nginx-tab", "haproxy-tab")]
        found = {}
        for tag in set(readers) - {"nginx-tab", "haproxy-tab"}:
            read = (in_python, url[tag]) if tag == "python" else (in_node, url[tag], tag)
            found[tag] = threads.submit(*read)
        until(lambda: all(b"\nid: fc-" in link.passed for link in links.values()), 60, "an event each")
        for tag in found:
            links[tag].cuts = [rolls.randrange(400, 1900) for _ in range(10)]
            links[tag].cut_open()
        feeder = threads.submit(feed, tmp_path, {1 + 9 * n + rolls.randrange(5) for n in range(10)}, in_tabs)
        until((tmp_path / "30").exists, 60, "a third of the events")
        pool = site.start_pool("--processes", "2")
        stack.callback(pool.stop)
        site.pool.popen.terminate()  # it lets its streams end
        until((tmp_path / "60").exists, 150, "two thirds of the events")
        stop_for_a_while(site, stack)
        feeder.result()
        for tag, seen in found.items():
            assert seen.result() == EXPECTED, tag
            assert not links[tag].cuts
        assert tabs.seen() == [EXPECTED, EXPECTED]
        assert all(link.connections > 5 for link in in_tabs)
        assert {tag: len(site.runs(tag)) for tag in readers} == dict.fromkeys(readers, 1)


def stop_for_a_while(site, stack):
    """Stop the one web process; the next one comes when proxies have answered in its place."""
    port = site.web.port
    site.web.stop()
    time.sleep(3)  # what a restart takes
    sock = socket.create_server(("127.0.0.1", port), backlog=2048)
    sock.set_inheritable(True)
    web = site.start_web(gateway="except_=['/page', '/client.mjs']", sock=sock)
    stack.callback(web.stop)


def feed(folder, cut_at, links):
    """Allow an event now and then, none for longer than each proxy waits in the middle; cut the links."""
    for number in range(EVENTS):
        (folder / str(number)).touch()
        time.sleep(TIMES.silence if number == EVENTS // 2 else TIMES.between_events)
        if number in cut_at:
            for link in links:
                link.cut_open()
