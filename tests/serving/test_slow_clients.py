"""Clients that are slow, and what deploys do to those that wait: nobody is delayed, no request is lost."""

import http.client
import os
import secrets
import shutil
import signal
import socket
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from crowd import Crowd as Waiters
from harness import APPS, Gunicorn, Process, answer_of, ask, calls_accepted, is_missing, listen, until

GEVENT = ("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker")
#: Seconds within which whoever waits is redirected by a stop.
SOON = 2.0
#: Seconds that the kernel, not we, may need on a busy machine.
SLACK = 2.0
WAITING = 200

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_is_left")]


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "2"), wait_seconds=40, max_waiting=WAITING)


@pytest.fixture(scope="module", params=[(), GEVENT], ids=["gthread", "gevent"])
def worker_class(request):
    """Options of gunicorn for one of our worker classes."""
    return request.param


@pytest.fixture(scope="module")
def web(site, worker_class):
    web = site.start_web(*worker_class, gateway="except_=['/fast*', '/big*']")
    yield web
    web.stop()


# -- slow clients


def latencies(port, count=200):
    """Return the milliseconds that so many requests to a fast route took, each on its own connection."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        assert ask(port, "/fast").status == 200
        found.append((time.perf_counter() - began) * 1000)
    return found


def slow_to_close(port):
    """Return a connection on which all was said, and that the client keeps open."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(b"GET /fast HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    while client.recv(65536):
        pass
    return client


def slow_to_read(port, size=30_000_000):
    """Return a connection on which a large response stands still after its beginning."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(b"GET /big?size=%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % size)
    assert client.recv(100).startswith(b"HTTP/1.1 200")
    return client


def slow_to_send(port):
    """Return a connection on which the head of a request stands still."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(b"GET /fast HTTP/1.1\r\nHo")
    return client


@pytest.mark.timeout(120)
@pytest.mark.parametrize("slow", [slow_to_close, slow_to_read, slow_to_send])
def test_slow_clients_delay_nobody(web, slow, seen):
    """Beside 20 slow clients 99 of 100 requests to a fast route take less than 50 ms, as without them."""
    port = web.port
    with ThreadPoolExecutor(20) as threads:
        # The best of eight: the machine may be busy with something else, which delays those alone too.
        for _ in range(8):
            alone = latencies(port)
            bound = max(50, 2 * p99(alone))
            clients = list(threads.map(slow, [port] * 20))
            beside = latencies(port)
            for client in clients:
                client.close()
            if p99(beside) < bound:
                break
    seen("each of 200 requests alone", [took / 1000 for took in alone])
    seen("each of 200 requests beside slow clients", [took / 1000 for took in beside])
    assert p99(beside) < bound


def test_readers_who_take_nothing_leave_room_to_wait(site, worker_class):
    """Beside more clients that stop reading than requests may wait, others are served."""
    web = site.start_web(*worker_class, gateway="max_waiting=4")
    try:
        clients = [slow_to_read(web.port, size=5_000_000) for _ in range(12)]
        assert [ask(web.port, "/fast").status for _ in range(5)] == [200] * 5
        for client in clients:
            client.close()
    finally:
        web.stop()


def p99(values):
    return statistics.quantiles(values, n=100, method="inclusive")[98]


@pytest.mark.timeout(180)
def test_gevent_holds_a_thousand_waiting_requests(site, gate):
    """With `max_waiting` raised a thousand requests wait in one gevent process, and all are answered."""
    app = f"wsgi_timeout:gateway({site.target!r}, name={site.name!r})"
    env = {**site.env, "WSGI_TIMEOUT_MAX_WAITING": "1000"}
    web = Gunicorn(app, site.redis.url, *GEVENT, env=env, cwd=APPS)
    try:
        crowd = Waiters(site, web.port, gate, 1000)
        assert psutil.Process(web.workers()[0].pid).num_threads() < 20
        assert not crowd.answered()
        assert ask(web.port, "/fast").status == 503
        gate.touch()
        answers, _ = crowd.answers()
        crowd.close()
        assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
        assert len(answers) == 1000
    finally:
        web.stop()


# -- deploys


class Crowd:
    """Clients that follow their redirects to the end, each on one connection while the server keeps it."""

    def __init__(self, site, port, folder, size=WAITING):
        """Send all requests, to handlers that wait for a gate; returns when their calls were accepted."""
        self.gate = folder / f"gate-{secrets.token_hex(4)}"
        self._site = site
        self._port = port
        self._target = f"/gate?file={self.gate}"
        self.size = size
        #: When the first redirect of each client came.
        self.redirected = []
        accepted = self._accepted() + size
        self._threads = ThreadPoolExecutor(size)
        self._chains = [self._threads.submit(self._chain) for _ in range(size)]
        until(lambda: self._accepted() == accepted, 30, "the acceptance of all calls")

    def _accepted(self):
        return calls_accepted(self._site.redis.client, self._site.name)

    def _chain(self):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=40)
        statuses = []
        try:
            target = self._target
            while target:
                connection.request("GET", target)
                answer = answer_of(connection)
                if not statuses:
                    self.redirected.append(time.monotonic())
                statuses.append(answer.status)
                target = answer.location
        finally:
            connection.close()
        return statuses, answer.body

    def ends(self):
        """Return how each chain went: its statuses, and the last body. Raises what a client ran into."""
        with self._threads:
            return [chain.result() for chain in self._chains]


def check(crowd, began):
    """Every client is redirected, and ends with its result; returns the seconds since `began` until then."""
    until(lambda: len(crowd.redirected) == crowd.size, what="all redirects")
    crowd.gate.touch()
    for statuses, body in crowd.ends():
        assert statuses == [303] * (len(statuses) - 1) + [200]
        # One of the wait, one of a hop that came in on the kept connection.
        assert 2 <= len(statuses) <= 4, statuses
        assert body == b"passed \n"
    return max(crowd.redirected) - began


def redirected_soon(once, seen):
    """Redirects come within 2 s; the best of three runs, if the machine was busy with something else."""
    took = []
    while len(took) < 3 and min(took, default=SOON) >= SOON:
        took.append(once())
    seen("until all were redirected", took)
    assert min(took) < SOON + SLACK


def pids(web):
    return {process.pid for process in web.workers()}


def test_a_reload_redirects_all_to_the_new_workers(site, web, tmp_path, seen):
    """At a HUP each of 200 requests that wait is redirected within 2 s, and ends on the new workers."""

    def once():
        crowd = Crowd(site, web.port, tmp_path)
        old = pids(web)
        began = time.monotonic()
        web.popen.send_signal(signal.SIGHUP)
        seconds = check(crowd, began)
        until(lambda: pids(web) and pids(web).isdisjoint(old), what="the end of the old workers")
        return seconds

    redirected_soon(once, seen)


@pytest.mark.parametrize("size", [1, WAITING])
def test_max_requests_redirects_all_to_the_next_worker(site, worker_class, tmp_path, seen, size):
    """At the end of a worker by `max_requests` each of 200 requests that wait ends on the next one."""
    options = ("--max-requests", str(size + 20))

    def once():
        web = site.start_web(*worker_class, *options, gateway="except_=['/fast*']")
        try:
            crowd = Crowd(site, web.port, tmp_path, size)
            (old,) = pids(web)
            for _ in range(20):
                began = time.monotonic()
                assert ask(web.port, "/fast").status == 200
            seconds = check(crowd, began)
            until(lambda: pids(web) and old not in pids(web), what="the next worker")
        finally:
            web.stop()
        return seconds

    redirected_soon(once, seen)


class Upgradable(Process):
    """gunicorn by its own script: what `python -m gunicorn` runs does not find its modules at USR2."""

    def __init__(self, site):
        """Serve the site's target on a port of its own."""
        app = f"wsgi_timeout:gateway({site.target!r}, name={site.name!r})"
        words = ("-c", "python:wsgi_timeout.gunicorn_conf", "-b", "127.0.0.1:0", app)
        program = Path(sys.executable).with_name("gunicorn")
        super().__init__([program, *words], env={**site.env, "REDIS_URL": site.redis.url}, cwd=APPS)
        self.port = int(self.wait_for(r"Listening at: \S+:(\d+)")[1])


def upgrade(web, site, folder):
    """Have a new master take over from the old one, as gunicorn's documentation says."""
    crowd = Crowd(site, web.port, folder)
    (worker,) = psutil.Process(web.pid).children()
    web.popen.send_signal(signal.SIGUSR2)
    new = until(lambda: [p for p in psutil.Process(web.pid).children() if p != worker], what="a master")[0]
    try:
        until(new.children, what="its worker")
        began = time.monotonic()
        web.popen.send_signal(signal.SIGTERM)
        seconds = check(crowd, began)
        assert web.popen.wait(20) == 0
        assert ask(web.port, "/fast").status == 200
    finally:
        new.terminate()
        psutil.wait_procs([new], 20)
    return seconds


def test_a_new_master_takes_all_over(site, tmp_path, seen):
    """At USR2, and TERM to the old master, each of 200 requests that wait ends with the new one."""

    def once():
        web = Upgradable(site)
        try:
            return upgrade(web, site, tmp_path)
        finally:
            web.stop()

    redirected_soon(once, seen)


NGINX = """
daemon off;
worker_processes 1;
error_log stderr warn;
pid {folder}/pid;
{user}
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream app {{
    server 127.0.0.1:{first} max_fails=0;
    server 127.0.0.1:{second} max_fails=0 backup;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://app;
      proxy_set_header Host $http_host;
    }}
  }}
}}
"""


class Nginx(Process):
    """nginx before two web servers: the second is asked when the first one is away."""

    def __init__(self, folder, first, second):
        """Listen on a socket that nginx inherits, as at its own upgrade."""
        self.socket = listen()
        self.port = self.socket.getsockname()[1]
        user = "user root;" if os.getuid() == 0 else ""
        config = folder / "nginx.conf"
        config.write_text(
            NGINX.format(folder=folder, first=first, second=second, port=self.port, user=user), "utf-8"
        )
        super().__init__(
            ["nginx", "-p", folder, "-e", "stderr", "-c", config],
            env={"PATH": os.environ["PATH"], "NGINX": f"{self.socket.fileno()};"},
            pass_fds=(self.socket.fileno(),),
        )

    def stop(self, number=signal.SIGTERM, seconds=20.0):
        code = super().stop(number, seconds)
        self.socket.close()
        return code


@pytest.fixture
def behind_nginx(site, tmp_path):
    """Two deployments, and nginx before them."""
    if not shutil.which("nginx"):
        is_missing("nginx")
    webs = [site.start_web(gateway="except_=['/fast*']") for _ in range(2)]
    nginx = Nginx(tmp_path, *(web.port for web in webs))
    for web in webs:
        ask(web.port, "/fast")
        # When it has ended nobody may listen there.
        web.socket.close()
    yield *webs, nginx
    for process in (nginx, *webs):
        process.stop()


def test_behind_nginx_another_deployment_takes_all_over(site, behind_nginx, tmp_path, seen):
    """Behind nginx, at a TERM, each of 200 requests that wait ends with a gunicorn that runs beside."""
    old, new, nginx = behind_nginx
    crowd = Crowd(site, nginx.port, tmp_path)
    began = time.monotonic()
    old.popen.send_signal(signal.SIGTERM)
    took = check(crowd, began)
    seen("until all were redirected", [took])
    assert took < SOON + SLACK
    assert old.popen.wait(20) == 0
    assert old.output.count('"GET /gate HTTP/1.0" 303') >= WAITING
    # A line is written after its response.
    until(lambda: new.output.count('"GET /gate HTTP/1.0" 200') == WAITING, what="a line for each response")
