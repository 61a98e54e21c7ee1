"""A thread that has answered a request handles the connection's next one too, if that comes at once."""

import http.client
import json
import socket
import threading
from contextlib import closing

import pytest

from wsgi_timeout.serving.thread_pool import ThreadPool


def test_a_connection_tells_whether_more_comes(client_and_connection):
    """What a client sends is seen; silence is not taken for a request."""
    client, connection = client_and_connection
    assert connection.receive_within(0.001) is None
    client.sendall(b"GET / HTTP/1.1\r\n")
    assert connection.receive_within(20.0) == b"GET / HTTP/1.1\r\n"
    client.close()
    assert connection.receive_within(20.0) == b""


def test_an_app_may_read_the_socket_itself(client_and_connection):
    """Reads of an app that takes over the connection have no limit of ours, and it may set one."""
    client, connection = client_and_connection
    assert connection.receive_within(0.001) is None
    sender = threading.Timer(0.05, client.sendall, [b"frame"])
    sender.start()
    assert connection.sock.recv(100) == b"frame"
    sender.join()
    connection.sock.settimeout(0.001)
    with pytest.raises(TimeoutError):
        connection.sock.recv(100)
    assert connection.receive_within(20.0) is None
    connection.sock.setblocking(True)
    assert connection.sock.gettimeout() is None


def test_what_was_received_ahead_is_not_waited_for(client_and_connection):
    """A request that came with the last one is there already: nothing more may come."""
    _, connection = client_and_connection
    connection.paced.put_ahead(b"GET / HTTP/1.1\r\n")
    assert connection.receive_within(20.0) is None


def test_a_thread_goes_on_with_a_connection():
    """A connection's requests are handled in a row by one thread, and the outcome of the last one is told."""
    left, ended = [2, 1, 0], []
    told = socket.socketpair()

    def done(connection, outcome):
        ended.append((connection, outcome.result()))
        told[0].send(b"x")

    pool = ThreadPool(4, lambda _conn: left.pop(0), lambda _conn, outcome: outcome.result() > 0, done)
    with closing(told[0]), closing(told[1]):
        pool.submit("a connection")
        told[1].settimeout(20)
        assert told[1].recv(1) == b"x"
        pool.shutdown()
    assert ended == [("a connection", 0)]


def test_requests_in_pieces_on_one_connection(deploy):
    """Requests, small and large, that follow at once and come in two pieces are answered in their order."""
    site = deploy(pool=("--processes", "1"))
    connection = socket.create_connection(("127.0.0.1", site.web.port), timeout=30)
    with closing(connection), connection.makefile("rb") as answers:
        for size in (1, 100_000, 10_000) * 4:
            connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Len")
            connection.sendall(b"gth: %d\r\n\r\n" % size + bytes(size))
            assert next_answer(answers)["length"] == size


def next_answer(file):
    """Return the JSON of a connection's next answer."""
    assert file.readline() == b"HTTP/1.1 200 OK\r\n"
    headers = http.client.parse_headers(file)
    return json.loads(file.read(int(headers["Content-Length"])))
