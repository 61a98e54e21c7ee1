"""The contestants: each a web process and a worker for the same no-op app, on one Redis."""

import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import load
from harness import Gunicorn, Pool, Process, environment

FOLDER = Path(__file__).parent
BIN = Path(sys.executable).parent
#: As in our own configuration, but for what a contestant brings itself. No access log for anybody.
THREADS = ("-k", "gthread", "--threads", "216", "--keep-alive", "60")
GEVENT = ("-k", "gevent", "--worker-connections", "12000", "--backlog", "8192", "--keep-alive", "60")

#: What the connections of our web process are called in Redis.
WEB_NAME = "web"


@dataclass(frozen=True)
class Contestant:
    """Running processes; `port` answers."""

    name: str
    web: Process
    port: int
    #: None for those without one.
    worker: Process | None


def env(server, **settings):
    """Return what every process of a contestant runs in."""
    clean = environment(log_level="WARNING", **settings)
    # Celery and the others keep what they import in sight of the benchmark's folder only.
    return {**clean, "REDIS_URL": server.url, "PYTHONPATH": str(FOLDER)}


@contextmanager
def direct(server, options=THREADS, app="apps:noop"):
    """Run the app under gunicorn alone."""
    web = Gunicorn(app, server.url, *options, env=env(server), cwd=FOLDER, config=None)
    try:
        yield _ready(Contestant("direct", web, web.port, None))
    finally:
        web.stop()


@contextmanager
def ours(server, options=(), *, app="apps:noop", pool=("--processes", "1"), **settings):
    """Run the app through `gateway` and a pool, in our own configuration."""
    its_env = env(server, **settings)
    web = Gunicorn(
        f"wsgi_timeout:gateway({app!r})",
        f"{server.url}?client_name={WEB_NAME}",
        *options,
        env=its_env,
        cwd=FOLDER,
        config="python:quiet_conf",
    )
    try:
        worker = Pool(app, None, server.url, *pool, env=its_env, cwd=FOLDER)
        try:
            yield _ready(Contestant("ours", web, web.port, worker))
        finally:
            worker.stop()
    finally:
        web.stop()


@contextmanager
def _peer(server, name, web_app, worker_command, options=THREADS):
    its_env = env(server)
    with ExitStack() as running:
        web = Gunicorn(web_app, server.url, *options, env=its_env, cwd=FOLDER, config=None)
        running.callback(web.stop)
        worker = None
        if worker_command:
            worker = Process(worker_command, env=its_env, cwd=FOLDER)
            running.callback(worker.stop)
        yield _ready(Contestant(name, web, web.port, worker))


def floor(server, options=THREADS):
    return _peer(server, "floor", "floor:web()", [sys.executable, "floor.py"], options)


def simple_worker(server):
    command = [BIN / "rq", "worker", "--worker-class", "rq.SimpleWorker", "-q", "--url", server.url, "peers"]
    return _peer(server, "rq.SimpleWorker", "peers:rq_web()", command)


def stock_worker(server):
    command = [BIN / "rq", "worker", "-q", "--url", server.url, "peers"]
    return _peer(server, "rq worker", "peers:rq_web()", command)


def celery(server):
    # prefork, as by default; one process, as everybody here.
    command = [BIN / "celery", "-A", "peers:celery_app", "worker", "-c", "1", "-l", "WARNING"]
    return _peer(server, "Celery", "peers:celery_web()", [*command, "--without-gossip", "--without-mingle"])


def dramatiq(server):
    command = [BIN / "dramatiq", "peers", "--processes", "1", "--threads", "1"]
    return _peer(server, "Dramatiq", "peers:dramatiq_web()", command)


def huey(server):
    command = [BIN / "huey_consumer", "peers.huey_app", "-w", "1", "-q"]
    return _peer(server, "Huey", "peers:huey_web()", command)


def dirty(server):
    options = (*THREADS, "--dirty-app", "peers:Dirty", "--dirty-workers", "1")
    return _peer(server, "gunicorn's dirty workers", "peers:dirty_web()", None, options)


PEERS = (simple_worker, celery, dramatiq, huey, dirty)


def _ready(contestant):
    deadline = time.monotonic() + 30
    while True:
        try:
            load.latency(contestant.port, 3)
        except (AssertionError, OSError) as error:
            if time.monotonic() > deadline:
                logs = [process.output[-2000:] for process in (contestant.web, contestant.worker) if process]
                raise AssertionError(
                    f"{contestant.name} does not answer: {error}\n" + "\n".join(logs)
                ) from None
            time.sleep(0.2)
        else:
            return contestant


def version(module):
    """Return the installed version of a distribution."""
    command = [sys.executable, "-c", f"import importlib.metadata as m; print(m.version({module!r}))"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
