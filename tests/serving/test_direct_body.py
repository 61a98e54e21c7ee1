"""Large bodies under our worker classes are received without gunicorn's buffers, and the same bytes come."""

import hashlib
import http.client
import json
import random
import ssl
from contextlib import closing
from itertools import count

import pytest
from certificates import self_signed
from uploader import BUFFER, MIB, content

from wsgi_timeout.serving.direct_body import DirectBody, direct

GEVENT = ("-k", "wsgi_timeout.gunicorn_gevent.GeventWorker")
SIZE = 200_000
NEXT = b"GET /next HTTP/1.1\r\n"


def body_of(client, connection, *, ahead=0):
    """Send a head, with so many bytes of its body received ahead; return the body and what is to be sent."""
    data = content(SIZE)
    connection.paced.allow(20.0)
    connection.paced.put_ahead(
        f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n".encode() + data[:ahead]
    )
    body = direct(next(connection.parser).body)
    assert isinstance(body, DirectBody)
    return body, data


@pytest.mark.parametrize("seed", range(5))
def test_each_way_to_read_gives_the_next_bytes(client_and_connection, seed):
    """Reads of every kind and size, mixed, give the body once, and none of the request behind it."""
    client, connection = client_and_connection
    choice = random.Random(seed)
    ahead = choice.choice([0, 1, 5_000, 70_000])
    body, data = body_of(client, connection, ahead=ahead)
    client.sendall(data[ahead:] + NEXT)
    got = b""
    while len(got) < SIZE:
        buffer = memoryview(bytearray(choice.choice([1, 700, 9_000, 60_000])))
        way = choice.choice(["read", "readline", "into", "into now"])
        if way.startswith("into"):
            number = (body.receive_into if way == "into" else body.receive_into_now)(buffer)
            got += bytes(buffer[: number or 0])
        else:
            got += getattr(body, way)(len(buffer))
    assert got == data
    assert body.receive_into(memoryview(bytearray(10))) == 0
    assert body.read(10) == b""
    assert connection.body_is_read()
    left = connection.leftover()  # gunicorn's own reads go on past the body
    assert (left or connection.sock.recv(len(NEXT))) == NEXT


def test_without_waiting_it_says_that_nothing_has_come(client_and_connection):
    """A read that may not block returns None while the client is silent, and 0 once it has left early."""
    client, connection = client_and_connection
    body, data = body_of(client, connection)
    buffer = memoryview(bytearray(SIZE))
    assert body.receive_into_now(buffer) is None
    client.sendall(data[:10])
    assert body.receive_into(buffer) == 10
    client.close()
    assert body.receive_into(buffer) == 0
    assert not connection.body_is_read()


def test_a_silent_client_is_given_up(client_and_connection):
    """A client below the least rate fails the read, after which the connection is not used again."""
    client, connection = client_and_connection
    body, _ = body_of(client, connection)
    connection.paced.allow(0.01)
    with pytest.raises(TimeoutError):
        body.receive_into(memoryview(bytearray(10)))
    assert body.failed
    assert not connection.body_is_read()


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), buffer=BUFFER, wait_seconds=40, secret="direct")


@pytest.fixture(scope="module", params=["gthread, TLS", "gevent"])
def connect(site, request, tmp_path_factory):
    """Return a function that connects to a web process."""
    if request.param == "gevent":
        web = site.start_web(*GEVENT)
        yield lambda: http.client.HTTPConnection("127.0.0.1", web.port, timeout=50)
    else:
        key, certificate = self_signed(tmp_path_factory.mktemp("tls"))
        web = site.start_web("--keyfile", str(key), "--certfile", str(certificate))
        context = ssl.create_default_context(cafile=str(certificate))
        yield lambda: http.client.HTTPSConnection("127.0.0.1", web.port, timeout=50, context=context)
    web.stop()


def test_large_uploads_in_a_row_arrive_whole(connect):
    """Uploads over the buffer arrive byte for byte on one connection, whatever pieces they come in."""
    with closing(connect()) as connection:
        for size, pieces in zip((3 * MIB, 2 * MIB + 7), ([MIB], [1, 200_000]), strict=True):
            data, sent = content(size), 0
            connection.putrequest("POST", "/hash")
            connection.putheader("Content-Length", str(size))
            connection.endheaders()
            for number in count():
                connection.send(data[sent : sent + pieces[number % len(pieces)]])
                sent += pieces[number % len(pieces)]
                if sent >= size:
                    break
            answer = json.loads(connection.getresponse().read())
            assert answer == {"length": size, "sha256": hashlib.sha256(data).hexdigest()}
