"""A server that refuses our password: no storm of connections, and said as what it is."""

import logging

import pytest
import redis
from harness import RedisServer, until

from wsgi_timeout.store import redis_connections
from wsgi_timeout.store.connection import Commands, connect, connect_to_listen
from wsgi_timeout.store.redis_errors import what_happened
from wsgi_timeout.watching.listener import Listener


@pytest.fixture
def server():
    """A server that has a password since a moment ago."""
    server = RedisServer()
    server.client.config_set("requirepass", "right")
    yield server
    server.close()


def url_with(server, password):
    return f"unix://:{password}@{server.socket}" if password else server.url


def connections(server):
    return server.client.info("stats")["total_connections_received"]


@pytest.mark.parametrize("password", ["wrong", ""])
@pytest.mark.slow
def test_a_refused_password_is_not_offered_again_at_once(server, monkeypatch, password):
    """Of many commands that fail for one password, single ones and pipelines, one connects to the server."""
    monkeypatch.setattr(redis_connections, "REFUSED_SECONDS", 600.0)
    client = connect(url_with(server, password), connections=2)
    commands = Commands(client)
    before = connections(server)
    for _ in range(10):
        with pytest.raises(redis.exceptions.AuthenticationError) as raised:
            commands.send("PING")
        with pytest.raises(redis.exceptions.AuthenticationError):
            client.pipeline().ping().execute()
    assert connections(server) - before == 1
    assert what_happened(raised.value).startswith("Redis refuses the user or password of REDIS_URL (")
    client.close()


def test_another_password_is_another_account(server, monkeypatch):
    """A refusal holds for its password: with the right one the same server is used at once."""
    monkeypatch.setattr(redis_connections, "REFUSED_SECONDS", 600.0)
    with pytest.raises(redis.exceptions.AuthenticationError):
        connect(url_with(server, "wrong"), connections=1).ping()
    assert connect(url_with(server, "right"), connections=1).ping()


def test_a_password_that_becomes_right_is_taken(server, monkeypatch, caplog):
    """A process goes on by itself when the server takes its password, and says until then what is wrong."""
    monkeypatch.setattr(redis_connections, "REFUSED_SECONDS", 0.1)
    listener = Listener(lambda: connect_to_listen(url_with(server, "new")))
    with caplog.at_level(logging.WARNING), listener.waiter("fc-any"):
        until(lambda: listener.away, what="a refusal")
        until(lambda: "listener: Redis refuses the user or password" in caplog.text)
        server.client.config_set("requirepass", "new")
        until(lambda: not listener.away, what="the listener at work")
