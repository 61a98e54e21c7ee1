"""Deploys under traffic, behind proxies: no request is lost, and no POST runs twice."""

import http.client
import os
import shutil
import signal
import socket
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest
from harness import APPS, ROOT, Process, answer_of, ask, is_missing, listen, socket_activation, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.usefixtures("nothing_is_left")]

GEVENT = ("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker")
#: Requests of each test, at least: 2,000 in all.
REQUESTS = 500
CLIENTS = 8
#: Seconds that a client pauses after each.
PAUSE = 0.05

HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  {option}
frontend front
  bind 127.0.0.1:{port}
  default_backend webs
backend webs
  server a 127.0.0.1:{webs[0]}
  server b 127.0.0.1:{webs[1]}
"""

#: As it is recommended, but for what a test needs.
NGINX = {
    "events {}": "events {{}}\npid {folder}/pid;\ndaemon off;\nerror_log stderr;\n{user}",
    "listen 8080": "listen 127.0.0.1:{port}",
    "127.0.0.1:8000": "127.0.0.1:{webs[0]}",
    "127.0.0.1:8001": "127.0.0.1:{webs[1]}",
}


def quiet_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def reached(port, target="/fast"):
    try:
        return ask(port, target).status == 200
    except (OSError, http.client.HTTPException):
        return False


class Web:
    """gunicorn as it is deployed, by its own script: on a port that it opens, or that systemd has."""

    def __init__(self, site, options, *, activated):
        app = f"wsgi_timeout:gateway({site.target!r}, name={site.name!r})"
        gunicorn = [Path(sys.executable).with_name("gunicorn"), "-c", "python:wsgi_timeout.gunicorn_conf"]
        self._door = listen() if activated else None
        if self._door:
            self.port = self._door.getsockname()[1]
            self._command = [*socket_activation(self._door), *gunicorn, *options, app]
        else:
            self.port = quiet_port()
            self._command = [*gunicorn, "-b", f"127.0.0.1:{self.port}", *options, app]
        self._env = {**site.env, "REDIS_URL": site.redis.url}
        self._masters = []
        self.start()

    def start(self):
        doors = (self._door.fileno(),) if self._door else ()
        self._process = Process(self._command, env=self._env, cwd=APPS, pass_fds=doors)
        self._masters = [psutil.Process(self._process.pid)]
        self.serves()

    def serves(self):
        until(lambda: reached(self.port), 60, "an answer")

    def reload(self):
        """HUP."""
        before = self._masters[-1].children()
        self._masters[-1].send_signal(signal.SIGHUP)
        until(lambda: not any(child.is_running() for child in before), 60, "the end of its old workers")
        self.serves()

    def new_master(self):
        """USR2, and TERM to the old one."""
        old = self._masters[-1]
        before = old.children()
        old.send_signal(signal.SIGUSR2)
        new = until(lambda: [each for each in old.children() if each not in before], 60, "a new master")[0]
        self._masters.append(new)
        until(lambda: any(each.net_connections() for each in new.children()), 60, "its worker")
        old.terminate()
        until(lambda: not old.is_running() or old.status() == psutil.STATUS_ZOMBIE, 60, "the old one's end")

    def again(self):
        """TERM, and a start when it has ended."""
        self.stop()
        self.start()

    def close(self):
        self.stop()
        if self._door:
            self._door.close()

    def stop(self):
        for master in self._masters[1:]:
            master.terminate()
        psutil.wait_procs(self._masters[1:], 60)
        self._process.stop(seconds=60)


class Traffic:
    """Clients that send one request after the other, GETs and POSTs, and note what they got."""

    def __init__(self, port):
        self._port = port
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = ThreadPoolExecutor(CLIENTS)
        #: What went wrong, by the tag of the request.
        self.lost = {}
        self.posted = []
        self.count = 0
        self._clients = [self._threads.submit(self._send_all, number) for number in range(CLIENTS)]

    def _send_all(self, number):
        # Half of them keep their connections.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._ended.is_set() or (self.count < REQUESTS and not self.lost):
            with self._lock:
                self.count += 1
                count = self.count
            method, seconds = ("GET", "POST")[count % 2], ("0", "0.02", "0.3")[count % 3]
            tag = f"{method}-{count}"
            if method == "POST":
                self.posted.append(tag)
            try:
                answer = self._ask(connection, method, f"/slow?tag={tag}&seconds={seconds}")
            except (OSError, http.client.HTTPException) as error:
                answer = repr(error)
            if answer != f"200 slow {method} {tag} {method == 'POST':d}\n":
                self.lost[tag] = answer
                connection.close()
            if number % 2:
                connection.close()
            self._ended.wait(PAUSE)  # deploys need the processors too
        connection.close()

    @staticmethod
    def _ask(connection, method, target):
        body = b"x" if method == "POST" else None
        connection.request(method, target, body=body)
        while (answer := answer_of(connection)).status == 303:
            connection.request("GET", answer.location)
        return f"{answer.status} {answer.text}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Send what is missing, and wait for all."""
        self._ended.set()
        for client in self._clients:
            client.result()
        self._threads.shutdown()


@pytest.fixture(params=["haproxy", "haproxy-bare", "nginx"])
def proxy(request):
    """Return a proxy: as it is recommended, or HAProxy with its defaults before ports that systemd opened."""
    return request.param


@pytest.fixture(params=[(), GEVENT], ids=["gthread", "gevent"])
def webs(deploy, proxy, request):
    """Return a site, and two web servers of it."""
    site = deploy(pool=("--processes", "2", "--threads", "4"))
    site.web.stop()
    start = partial(Web, site, request.param, activated=proxy == "haproxy-bare")
    with ThreadPoolExecutor(2) as threads:
        both = [started.result() for started in [threads.submit(start) for _ in range(2)]]
    yield site, both
    for web in both:
        web.close()


def configured(name, port, webs, folder):
    if name != "nginx":
        return HAPROXY.format(port=port, webs=webs, option="option redispatch" if name == "haproxy" else "")
    user = "user root;" if os.getuid() == 0 else ""
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    for before, after in NGINX.items():
        text = text.replace(before, after.format(port=port, webs=webs, folder=folder, user=user))
    return text


@pytest.fixture
def proxied(webs, proxy, tmp_path):
    """Return what `webs` returns, and the port of a proxy before them."""
    name = proxy.partition("-")[0]
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        is_missing(name)
    port, path = quiet_port(), tmp_path / "proxy.cfg"
    path.write_text(configured(proxy, port, [web.port for web in webs[1]], tmp_path))
    words = ["-W", "-f"] if name == "haproxy" else ["-c"]
    running = Process([program, *words, path], cwd=tmp_path)
    until(lambda: reached(port), 30, "the proxy")
    yield *webs, port
    running.stop()


def test_deploys_lose_nothing(proxied):
    """Through HUP, a new master, TERM and a start, and pools that take turns: each request has its answer.

    Without `option redispatch` HAProxy tries a server three more times, a second apart, and no other one: a
    port may not be closed for long then. One that systemd opened never is.
    """
    site, (first, second), port = proxied
    with Traffic(port) as traffic:
        first.reload()
        second.new_master()
        first.again()
        second.again()
        old, site.pool = site.pool, site.start_pool("--processes", "2", "--threads", "4")
        assert old.stop(seconds=60) == 0
        site.pool.popen.send_signal(signal.SIGHUP)
    assert traffic.lost == {}
    runs = Counter(line.split()[0] for line in site.runs())
    assert {tag: runs[tag] for tag in traffic.posted if runs[tag] != 1} == {}
