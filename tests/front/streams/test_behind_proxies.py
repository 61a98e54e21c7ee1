"""Ninety events through nginx and HAProxy that cut what is silent, cut at random, over a deploy."""

import json
import random
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import sseclient
from harness import ROOT, Process, is_missing, until
from links import Breaking

EVENTS = 90
EXPECTED = [f"{n} " for n in range(EVENTS)]

NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path b; proxy_temp_path p;
  fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{behind}; proxy_read_timeout 5s; proxy_http_version 1.1; }} }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 4s
  retries 5
  # An error of a proxy would end an EventSource for good.
  option redispatch 1
  retry-on conn-failure empty-response
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server one 127.0.0.1:{one} check inter 200ms
  server two 127.0.0.1:{two} check inter 200ms backup
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def site(deploy):
    return deploy(
        "clients_site:app",
        pool=("--processes", "4"),
        gateway="except_=['/page', '/client.mjs']",
        wait_seconds=1.0,  # less than each proxy's limit
        event_streams="resumable",
        keepalive_seconds=0.5,
    )


@pytest.fixture
def proxied(site, tmp_path):
    """The port of nginx, behind which is HAProxy, behind which are two web processes."""
    for program in ("nginx", "haproxy"):
        if not shutil.which(program):
            is_missing(program)
    second = site.start_web(gateway="except_=['/page', '/client.mjs']")
    inner, outer = free_port(), free_port()
    (tmp_path / "haproxy.cfg").write_text(HAPROXY.format(port=inner, one=site.web.port, two=second.port))
    (tmp_path / "nginx.conf").write_text(NGINX.format(port=outer, behind=inner))
    proxies = [
        Process(["haproxy", "-db", "-f", tmp_path / "haproxy.cfg"]),
        Process(["nginx", "-p", tmp_path, "-e", "stderr", "-c", tmp_path / "nginx.conf"]),
    ]
    until(lambda: listens(inner) and listens(outer), what="the proxies")
    yield outer
    for process in (*proxies, second):
        process.stop()


def in_python(url):
    """Read with sseclient, coming back with the last id as an EventSource does."""
    seen, last = [], ""
    while True:
        try:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
            answer = requests.get(url, stream=True, headers=headers, timeout=20)
            if answer.status_code == 204:
                return seen
            for event in sseclient.SSEClient(answer).events():
                seen.append(event.data.replace("\n", " "))
                last = event.id or last
        except requests.RequestException:
            pass
        time.sleep(0.1)


def in_node(url):
    node = shutil.which("node") or is_missing("node")
    command = [
        node,
        ROOT / "tests/clients/check.mjs",
        ROOT / "clients/wsgi_timeout_client.mjs",
        "events",
        url,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [data.replace("\n", " ") for data in json.loads(done.stdout)["seen"]]


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_each_event_once_whatever_happens(site, proxied, tmp_path):
    """Over cuts, silence and a deploy two clients get each event once, in order, of one run each."""
    rolls = random.Random(18)
    links = [Breaking(proxied, [rolls.randrange(1000, 3000) for _ in range(10)]) for _ in range(2)]
    urls = [f"http://127.0.0.1:{link.port}/events?count={EVENTS}&folder={tmp_path}" for link in links]
    feeder = threading.Thread(target=feed, args=(tmp_path,))
    pools = []
    try:
        with ThreadPoolExecutor() as threads:
            found = [
                threads.submit(in_python, f"{urls[0]}&tag=python"),
                threads.submit(in_node, f"{urls[1]}&tag=node"),
            ]
            until(lambda: all(site.runs(tag) for tag in ("python", "node")), what="two runs")
            feeder.start()
            until((tmp_path / "30").exists, 60, "a third of the events")
            pools.append(site.start_pool("--processes", "2"))
            site.pool.popen.terminate()  # it lets its streams end
            until((tmp_path / "60").exists, 60, "two thirds of the events")
            site.web.stop()
            for seen in found:
                assert seen.result() == EXPECTED
        assert [len(site.runs(tag)) for tag in ("python", "node")] == [1, 1]
        assert [len(link.cuts) for link in links] == [0, 0]
    finally:
        feeder.join()
        for closing in links:
            closing.close()
        for pool in pools:
            pool.stop()


def feed(folder):
    """Allow an event ten times a second, and none for longer than each proxy waits, in the middle."""
    for number in range(EVENTS):
        (folder / str(number)).touch()
        time.sleep(9 if number == EVENTS // 2 else 0.15)
