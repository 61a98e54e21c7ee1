"""A Redis that falls silent while requests wait: no end of a wait depends on a reply."""

import contextlib
import os
import signal
import threading
import time

import pytest
import redis
from call_steps import be_born, queued
from halves import BothHalves
from harness import RedisServer, until

from wsgi_timeout.front.process import Runtime
from wsgi_timeout.front.result_urls import find
from wsgi_timeout.front.wait import wait
from wsgi_timeout.front.web_server import WebServer
from wsgi_timeout.functions.call import FunctionCall
from wsgi_timeout.functions.client import Client
from wsgi_timeout.http.pending import Pending
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys, time_limit
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.connection import Commands, connect
from wsgi_timeout.store.record import Origin
from wsgi_timeout.store.time_limit import within

#: Seconds that a silent server is given in these tests: who depends on a reply runs into a test's timeout.
FOR_EVER = 600.0


@pytest.fixture(autouse=True)
def _not_late(monkeypatch):
    monkeypatch.setattr(time_limit, "LATE_SECONDS", 0.1)


@pytest.fixture
def server():
    server = RedisServer()
    yield server
    os.kill(server.process.pid, signal.SIGCONT)
    server.close()


@pytest.fixture
def runtime(server):
    """A web process's runtime, for whose commands a silent server has for ever."""
    runtime = Runtime(server.url, "cut", "", Settings(), WebServer())
    runtime.calls = Calls(connect(server.url, connections=2, socket_timeout=FOR_EVER), "cut")
    return runtime


@pytest.fixture
def call(server):
    calls = BothHalves(connect(server.url, connections=1), "cut")
    be_born(calls, "cut-w1")
    return queued(calls, origin=Origin(b"asked"))


def fall_silent(server, client):
    """Stop the server under a client: every connection of it waits for a reply that does not come."""
    commands = Commands(client, retries=0)
    pool = client.connection_pool
    os.kill(server.process.pid, signal.SIGSTOP)
    for _ in range(pool.max_connections):

        def ask():
            with contextlib.suppress(redis.exceptions.RedisError):
                commands.send("PING")

        threading.Thread(target=ask, daemon=True).start()
    until(lambda: pool.pool.qsize() == 0, what="all connections in use")


def test_a_wait_ends_without_redis(server, runtime, call):
    """A wait ends at its time, and is a redirect, though its look stands in line behind silent ones."""
    with runtime.seat(call.id, {}, hop=1) as seat:
        fall_silent(server, runtime.calls.redis)
        assert wait(runtime, seat, 0.2, look_first=True) is None


def test_a_look_that_is_not_answered_ends_with_its_wait(server, runtime, call):
    """A wait ends at its time, though the reply to its own look never comes."""
    with runtime.seat(call.id, {}, hop=1) as seat:
        runtime.calls.look(call.id)
        os.kill(server.process.pid, signal.SIGSTOP)
        assert wait(runtime, seat, 0.2, look_first=True) is None


def test_a_hop_ends_without_redis(server, runtime, call):
    """A hop whose call Redis does not tell of ends at its time: nobody knows whose the call is."""
    pending = Pending(call.id, call.token, call.path, call.path, 1)
    with runtime.seat(call.id, {}, hop=1) as seat:
        fall_silent(server, runtime.calls.redis)
        assert find(runtime, pending, seat.waiter, time.monotonic() + 0.2) is None


def test_a_poll_ends_without_redis(server, call, monkeypatch):
    """`get` with a timeout raises `TimeoutError` at its time, though no reply comes."""
    here = Client(server.url)
    here.redis = connect(server.url, connections=1, socket_timeout=FOR_EVER)
    here._commands = Commands(here.redis)
    monkeypatch.setattr("wsgi_timeout.functions.call.client", lambda: here)
    here.send("HSET", keys.call(call.id), "state", "running")
    fall_silent(server, here.redis)
    for timeout in (0, 0.2):
        with pytest.raises(TimeoutError):
            FunctionCall(call.id).get(timeout=timeout)


def test_a_line_ends_with_the_first_that_is_not_answered(server):
    """Of many commands in line for one connection to a silent server none waits for longer than one limit."""
    commands = Commands(connect(server.url, connections=1, socket_timeout=1.0))
    commands.send("PING")
    os.kill(server.process.pid, signal.SIGSTOP)
    errors = []

    def ask():
        try:
            commands.send("PING")
        except redis.exceptions.TimeoutError as error:
            errors.append(str(error))

    asking = [threading.Thread(target=ask) for _ in range(10)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(60)
    # The first one, and whoever a busy machine let come later than its end.
    assert len(errors) == 10
    assert "it did not answer who came before" in errors


def test_a_limit_is_gone_with_its_block(server):
    """A connection that was used within a limit gives the server its whole time again afterwards."""
    commands = Commands(connect(server.url, connections=1))
    with within(0.3):
        assert commands.send("PING") == b"PONG"
    answers = []
    os.kill(server.process.pid, signal.SIGSTOP)
    asking = threading.Thread(target=lambda: answers.append(commands.send("PING")))
    asking.start()
    asking.join(0.6)
    os.kill(server.process.pid, signal.SIGCONT)
    asking.join(60)
    assert answers == [b"PONG"]
