"""Single commands over shared connections: what breaks one off leaves nothing for the next."""

import signal
import threading

import pytest
import redis
from harness import until

from wsgi_timeout.store.connection import Commands, connect


class BrokenOffError(BaseException):
    """What a signal handler, or gevent, raises in the middle of a command."""


@pytest.fixture
def commands(redis_server):
    client = connect(redis_server.url, connections=1)
    yield Commands(client)
    client.close()


@pytest.fixture
def broken_off():
    """Return a function that has an exception raised in this thread when another one has seen something."""

    def handler(_number, _frame):
        raise BrokenOffError

    before = signal.signal(signal.SIGUSR1, handler)

    def when(condition):
        def watch():
            until(condition, what="the command")
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

        threading.Thread(target=watch).start()

    yield when
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("many", [False, True])
def test_a_command_that_is_broken_off_leaves_no_reply(redis_server, commands, broken_off, many):
    """The command after one that was broken off gets its own reply."""
    commands.send("PING")
    broken_off(lambda: any(one["cmd"] == "blpop" for one in redis_server.client.client_list()))
    waiting = ("BLPOP", "nothing-there", "5")
    with pytest.raises(BrokenOffError):
        commands.send_all([waiting]) if many else commands.send(*waiting)
    redis_server.client.rpush("nothing-there", "late")
    assert commands.send("ECHO", "own") == b"own"
    redis_server.client.delete("nothing-there")


def test_an_error_among_several_leaves_no_reply(commands):
    """When one of several commands fails, the error stands in its place, and the next has its own reply."""
    first, error, last = commands.send_all([("ECHO", "a"), ("NONSENSE",), ("ECHO", "b")])
    assert (first, last) == (b"a", b"b")
    assert isinstance(error, redis.exceptions.ResponseError)
    assert commands.send("ECHO", "own") == b"own"
