"""The proxy of the fault tests passes everything on as it is, and breaks off exactly what it is told to."""

import socket
import threading
import time

import pytest
import redis
from faults.proxy import Break, Proxy, naming, nth
from harness import until


@pytest.fixture(params=["unix", "tcp"])
def proxy(redis_server, request, tmp_path):
    proxy = Proxy(redis_server, tmp_path / "s" if request.param == "unix" else None)
    redis_server.client.flushall()
    yield proxy
    proxy.close()


@pytest.fixture
def connect(proxy):
    """Return a function that makes clients which never repeat a command."""
    clients = []

    def make(**options):
        client = redis.Redis.from_url(proxy.url, **{"socket_timeout": 5, "retry": None, **options})
        until(lambda: answered(client), what="its first answer")
        proxy.clear()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def answered(client):
    """Send a command, and return whether its answer came within the patience of the client."""
    try:
        return client.ping()
    except redis.exceptions.TimeoutError:
        return False


@pytest.mark.parametrize("protocol", [2, 3])
def test_everything_passes_as_it_is(connect, proxy, protocol):
    """Replies of every kind and size come through, and each is recorded with its command."""
    client = connect(protocol=protocol)
    large = bytes(range(256)) * 20_000
    assert client.set("a", large)
    assert client.get("a") == large
    assert client.get("none") is None
    assert client.hset("h", mapping={"x": "1", "y": "2"}) == 2
    assert client.hgetall("h") == {b"x": b"1", b"y": b"2"}
    assert client.eval("return {1, {'two', {3, false}}, {}}", 0) == [1, [b"two", [3, None]], []]
    with pytest.raises(redis.exceptions.ResponseError, match="wrong kind"):
        client.incr("h")
    assert proxy.commands() == ["SET", "GET", "GET", "HSET", "HGETALL", "EVAL", "INCRBY"]
    assert proxy.exchanges[0].words == (b"SET", b"a", large)
    assert proxy.exchanges[3].reply == b":2\r\n"
    assert proxy.exchanges[-1].reply.startswith(b"-WRONGTYPE")
    assert proxy.round_trips() == 7


def test_a_pipeline_is_one_round_trip(connect, proxy):
    """With patience, commands that are sent together are one round trip, however large they are."""
    proxy.patience_seconds = 0.05
    client = connect()
    pipe = client.pipeline(transaction=False)
    for number in range(50):
        pipe.set(f"k{number}", b"x" * 100_000)
    pipe.get("k7")
    assert pipe.execute()[-1] == b"x" * 100_000
    assert proxy.commands() == ["SET"] * 50 + ["GET"]
    assert proxy.round_trips() == 1


def test_messages_pass(connect, proxy):
    """What the server says unasked reaches its subscriber."""
    pubsub = connect().pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("news", "more")
    until(lambda: proxy.client.pubsub_numsub("news", "more") == [(b"news", 1), (b"more", 1)])
    proxy.client.publish("more", "hello")
    message = until(lambda: pubsub.get_message(timeout=0.1), what="the message")
    assert message["data"] == b"hello"
    pubsub.close()


def test_refused(connect, proxy):
    """While it refuses, connections break and new ones are refused; then all is as before."""
    client = connect()
    proxy.refuse()
    for _ in range(2):
        with pytest.raises(redis.exceptions.ConnectionError):
            client.ping()
    assert proxy.client.ping()
    proxy.heal()
    assert client.ping()


def test_a_black_hole(connect, proxy):
    """In a black hole a command is silent, a new connection too; it is executed when the network is back."""
    client = connect(socket_timeout=0.2, socket_connect_timeout=0.2)
    proxy.black_hole()
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(redis.exceptions.TimeoutError):
            client.incr("late")
        assert time.monotonic() - began >= 0.2
    assert proxy.client.get("late") is None
    proxy.heal()
    # The second one's connection never got past its greeting.
    until(lambda: proxy.client.get("late") == b"1", what="the late command")
    until(lambda: answered(client), what="an answer as before")
    assert connect().incr("late") == 2


def test_a_delay(connect, proxy):
    """With a delay every command is late, and none is lost."""
    client = connect()
    proxy.delay_seconds = 0.1
    began = time.monotonic()
    assert [client.incr("n") for _ in range(3)] == [1, 2, 3]
    assert time.monotonic() - began >= 0.3


def test_in_pieces(proxy):
    """In pieces of one byte everything passes, a byte at a time."""
    proxy.piece_bytes = 1
    text = b"x" * 5000
    with socket.socket(socket.AF_UNIX if isinstance(proxy.address, str) else socket.AF_INET) as sock:
        sock.settimeout(5)
        sock.connect(proxy.address)

        def pieces():
            sock.sendall(b"*2\r\n$4\r\nECHO\r\n$5000\r\n" + text + b"\r\n")
            found = []
            while sum(map(len, found)) < 5009:
                found.append(sock.recv(10_000))
            assert b"".join(found) == b"$5000\r\n" + text + b"\r\n"
            return len(found)

        # A reader that the machine lets wait finds many at once.
        until(lambda: pieces() > 10, what="a reply in pieces")


@pytest.mark.parametrize("where", Break)
def test_the_third_is_broken_off(connect, proxy, where):
    """Exactly the ordered exchange is broken off: before its execution, after it, or within its reply."""
    client = connect()
    fault = proxy.break_at(where, nth(3, naming(b"n")))
    assert [client.incr("n"), client.incr("other"), client.incr("n")] == [1, 1, 2]
    with pytest.raises(redis.exceptions.ConnectionError):
        client.incr("n")
    assert fault.struck.words == (b"INCRBY", b"n", b"1")
    executed = 2 if where is Break.BEFORE else 3
    assert proxy.client.get("n") == b"%d" % executed
    assert client.incr("n") == executed + 1
    assert client.incr("n") == executed + 2


def test_half_a_reply(proxy):
    """What is broken within its reply gives the first half of its bytes, and then the connection's end."""
    proxy.client.set("a", "0123456789")
    proxy.break_at(Break.WITHIN, naming(b"GET"))
    with socket.socket(socket.AF_UNIX if isinstance(proxy.address, str) else socket.AF_INET) as sock:
        sock.settimeout(5)
        sock.connect(proxy.address)
        sock.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
        got = b"".join(iter(lambda: sock.recv(100), b""))
    assert got == b"$10\r\n012"


def test_within_a_pipeline(connect, proxy):
    """A pipeline that is broken at a reply was executed as a whole; at a command, only what stands before."""
    client = connect()
    for where, executed in ((Break.BEFORE, b"2"), (Break.AFTER, b"7")):
        fault = proxy.break_at(where, nth(3, naming(b"INCR")))
        pipe = client.pipeline(transaction=False)
        for _ in range(5):
            pipe.incr("n")
        with pytest.raises(redis.exceptions.ConnectionError):
            pipe.execute()
        assert fault.struck is not None
        until(lambda executed=executed: proxy.client.get("n") == executed, what="the execution")


def test_a_condition_may_look_at_the_reply(connect, proxy):
    """A break after the execution may depend on what was answered."""
    client = connect()
    proxy.client.rpush("list", "one", "two", "three")
    fault = proxy.break_at(Break.AFTER, naming(b"two"))
    assert client.lpop("list") == b"one"
    with pytest.raises(redis.exceptions.ConnectionError):
        client.lpop("list")
    assert fault.struck.reply == b"$3\r\ntwo\r\n"
    assert client.lpop("list") == b"three"


def test_many_side_by_side(connect, proxy):
    """Connections do not disturb each other."""
    clients = [connect() for _ in range(8)]

    def count(client):
        for _ in range(100):
            client.incr("n")

    threads = [threading.Thread(target=count, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proxy.client.get("n") == b"800"
    assert len({exchange.connection for exchange in proxy.exchanges}) == 8
