"""An app with `RequestTimeouts` under web servers that its user chose: it works, and says what to change."""

import hashlib
import re
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest
from harness import APPS, FAST, Pool, Process, environment, follow

pytestmark = pytest.mark.slow

UWSGI = "uwsgi --wsgi own_server:app --need-app"
#: How the user's servers are started, and where they say on which port they listen.
SERVERS = {
    "gunicorn-sync": (
        "gunicorn --no-control-socket -b 127.0.0.1:0 own_server:app",
        r"Listening at: \S+:(\d+)",
    ),
    "gunicorn-gthread": (
        "gunicorn --no-control-socket -b 127.0.0.1:0 --threads 8 own_server:app",
        r"Listening at: \S+:(\d+)",
    ),
    "gunicorn-gevent": (
        "gunicorn --no-control-socket -k gevent -b 127.0.0.1:0 own_server:app",
        r"Listening at: \S+:(\d+)",
    ),
    "uwsgi": (f"{UWSGI} --http-socket 127.0.0.1:0 --threads 8", r"TCP address \S+:(\d+)"),
    # Loads the app before it forks.
    "uwsgi-prefork": (
        f"{UWSGI} --http-socket 127.0.0.1:0 --threads 4 --master --processes 2",
        r"TCP address \S+:(\d+)",
    ),
    "waitress": ("waitress-serve --listen 127.0.0.1:0 own_server:app", r"Serving on \S+:(\d+)"),
    "granian": (
        "granian --interface wsgi --host 127.0.0.1 --port {port} own_server:app",
        r"Listening at: \S+:(\d+)[\s\S]*Started worker-1",
    ),
    "uvicorn-a2wsgi": ("uvicorn own_server_asgi:app --port 0", r"running on \S+:(\d+)"),
    "flask-run": ("flask --app own_server run --port 0", r"Running on \S+:(\d+)"),
}
#: What those of them say that have no more threads than requests may wait.
FEW_THREADS = {
    "gunicorn-sync": "gunicorn's gunicorn.workers.sync.SyncWorker handles 1 requests at a time",
    "gunicorn-gthread": "gunicorn's gunicorn.workers.gthread.ThreadWorker handles 8 requests at a time",
    "uwsgi": "uWSGI handles 8 requests at a time",
    "waitress": "waitress handles 4 requests at a time",
    "uvicorn-a2wsgi": "a2wsgi handles 10 requests at a time",
}
#: Servers that end a request after 4 s: the line that says so begins and ends like this.
IMPATIENT = {
    "gunicorn-sync": (
        "gunicorn --no-control-socket -b 127.0.0.1:0 --timeout 4 own_server:app",
        r"Listening at: \S+:(\d+)",
        "gunicorn's sync worker, which serves one request at a time,",
        "-k wsgi_timeout.gunicorn_worker.ThreadWorker --threads 416",
    ),
    "uwsgi-harakiri": (
        f"{UWSGI} --http-socket 127.0.0.1:0 --threads 4 --master --harakiri 4",
        r"TCP address \S+:(\d+)",
        "uWSGI's --harakiri",
        "a longer --harakiri",
    ),
    "uwsgi-http": (
        f"{UWSGI} --http 127.0.0.1:0 --threads 4 --http-timeout 4",
        r"http bound on 127.0.0.1:0 fd (\d+)",
        "uWSGI's --http-timeout",
        "a longer --http-timeout",
    ),
}


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


class Server(Process):
    """A web server, up when it has said on which port it listens."""

    def __init__(self, command, port, redis_server, **settings):
        program, *words = command.format(port=_free_port()).split()
        env = {**environment(**{**FAST, **settings}), "REDIS_URL": redis_server.url, "PYTHONUNBUFFERED": "1"}
        super().__init__([Path(sys.executable).with_name(program), *words], env=env, cwd=APPS)
        try:
            found = self.wait_for(port)
            self.port = self._port_of(int(found[1])) if " fd " in found[0] else int(found[1])
        except AssertionError:
            self.stop()
            raise

    def _port_of(self, descriptor):
        listening = psutil.Process(self.pid).net_connections("tcp")
        return next(one.laddr.port for one in listening if one.fd == descriptor)

    def stop(self, number=signal.SIGINT, seconds=20.0):
        """End it as Ctrl-C does: uWSGI would reload at SIGTERM."""
        return super().stop(number, seconds)

    @property
    def complaints(self):
        return re.findall(r"^.* requests wait .*$", self.output, re.MULTILINE)


@pytest.fixture(scope="module")
def pool(redis_server):
    env = environment(**FAST)
    pool = Pool("own_server:app", None, redis_server.url, "--processes", "2", env=env, cwd=APPS)
    yield pool
    pool.stop()


@pytest.fixture(scope="module", params=SERVERS)
def server(request, redis_server, pool):
    server = Server(*SERVERS[request.param], redis_server)
    server.name = request.param
    yield server
    server.stop()


def test_a_request_longer_than_the_wait_ends_with_its_result(server, pool):
    """A slow request is redirected, and its chain ends with what a worker process answered."""
    *hops, last = follow(server.port, "/slow?seconds=2")
    assert [hop.status for hop in hops] == [303] * len(hops)
    assert len(hops) >= 2
    assert last.status == 200
    assert last.json["pid"] in {process.pid for process in pool.workers()}


def test_an_upload_larger_than_a_message_arrives(server):
    """A body that travels in a stream of its own arrives whole."""
    body = bytes(range(256)) * 2000
    *hops, last = follow(server.port, "/slow?seconds=1.2", "POST", body=body)
    assert hops
    assert last.json["sha256"] == hashlib.sha256(body).hexdigest()


def test_a_server_that_lets_requests_wait_is_not_complained_about(server):
    """Nothing is said of the wait where it need not be cut."""
    assert follow(server.port, "/slow")[-1].status == 200
    assert server.complaints == []


def test_a_server_with_few_threads_is_told_of_once(server):
    """Where waiting requests can take all threads, one line says so, and what to change."""
    assert follow(server.port, "/slow")[-1].status == 200
    assert follow(server.port, "/slow")[-1].status == 200
    told = re.findall(r"([^:\n]+ handles \d+ requests at a time), and each that waits", server.output)
    if server.name != "uwsgi-prefork":  # there it is one a process that was asked
        assert told == [*filter(None, [FEW_THREADS.get(server.name)])]


class TestImpatience:
    @pytest.mark.usefixtures("pool")
    @pytest.mark.parametrize("name", IMPATIENT)
    @pytest.mark.slow
    def test_the_wait_is_cut_where_the_server_ends_requests(self, redis_server, name):
        """Where a server ends a request after 4 s it waits 2 s, not 60, and one line says what to do."""
        command, port, begin, end = IMPATIENT[name]
        server = Server(command, port, redis_server, wait_seconds=60)
        try:
            # Without the cut they would end the request before this handler is done.
            *hops, last = follow(server.port, "/slow?seconds=5.5")
            assert len(hops) >= 2
            assert last.status == 200
            (line,) = server.complaints
        finally:
            server.stop()
        assert line.startswith(
            f"{begin} ends a request after 4 s: requests wait 2 s instead of wait_seconds=60."
        )
        assert line.endswith(end)
