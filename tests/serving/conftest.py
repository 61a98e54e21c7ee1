"""`serve` in an app's own folder, in an environment with nothing else in it."""

import signal
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from gunicorn.config import Config
from harness import environment
from serve_command import SHOP, Serve

from wsgi_timeout.serving.gunicorn_connection import Connection
from wsgi_timeout.settings import Settings


@pytest.fixture
def client_and_connection():
    """Return a client's socket, and our connection at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, address = listening.accept()
    connection = Connection(Config(), accepted, address, ("127.0.0.1", 80), Settings())
    connection.init()
    with closing(client), closing(connection):
        yield client, connection


@pytest.fixture
def sockets():
    """Return the folder for sockets, empty when all is as it should be. Short: a socket's path is."""
    with tempfile.TemporaryDirectory(prefix="wt-") as folder:
        yield Path(folder)


@pytest.fixture
def env(tmp_path, sockets):
    """Return an environment in which nothing is found that is not in the app's own folder."""
    clean = environment(worker_wait=2)
    del clean["PYTHONPATH"]
    return {**clean, "XDG_STATE_HOME": str(tmp_path / "state"), "TMPDIR": str(sockets)}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a Flask app, `shop.py`."""
    path = tmp_path / "shop"
    path.mkdir()
    (path / "shop.py").write_text(SHOP)
    return path


@pytest.fixture
def serve(folder, env):
    """Return a function that serves from the app's folder; stopped with the test."""
    started = []

    def start(*words, **more):
        bind = () if "--bind" in words else ("--bind", "127.0.0.1:0")
        started.append(Serve(folder, *words, *bind, env={**env, **more}))
        return started[-1]

    yield start
    for one in started:
        one.stop(signal.SIGINT)
        sys.stdout.write(one.output)  # pytest shows it when the test has failed


@pytest.fixture
def door(serve, tmp_path):
    """Return a file that `/wait` waits for; it exists at the latest before `serve` is stopped."""
    path = tmp_path / "door"
    yield path
    path.touch()


@pytest.fixture
def together():
    """Return a function that runs another in a thread, and returns its future."""
    with ThreadPoolExecutor(8) as threads:
        yield threads.submit
