"""gunicorn's response leaves with few system calls, and its settings are read once."""

import socket
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import Response

from wsgi_timeout.serving.gunicorn_response import OneSendResponse, send_at_once
from wsgi_timeout.serving.gunicorn_settings import QuickSettings


def messages(blocks, headers, method="GET"):
    """Return what a client gets of a response, by system calls of its server."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        request = SimpleNamespace(method=method, version=(1, 1), should_close=lambda: False)
        response = Response(request, ours, Config())
        response.start_response("200 OK", headers)
        send_at_once(response.start_response)
        assert type(response) is OneSendResponse
        for block in blocks:
            response.write(block)
        response.close()
        ours.shutdown(socket.SHUT_WR)
        found = []
        while data := theirs.recv(200_000):
            found.append(data)
        return found


@pytest.mark.parametrize("length", [True, False])
def test_a_head_leaves_with_the_first_block(length):
    """A small response is one message, with a length or in chunks; later blocks are messages of their own."""
    headers = [("Content-Length", "5")] if length else []
    first, *rest = messages([b"ab", b"cde"], headers)
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    if length:
        assert first.endswith(b"\r\n\r\nab")
        assert rest == [b"cde"]
    else:
        assert first.endswith(b"\r\n\r\n2\r\nab\r\n")
        assert rest == [b"3\r\ncde\r\n", b"0\r\n\r\n"]


@pytest.mark.parametrize(("blocks", "method"), [([], "GET"), ([b""], "GET"), ([b"ab"], "HEAD")])
def test_a_head_without_a_body_leaves_alone(blocks, method):
    """An empty response, and the answer to a HEAD, is its head, once."""
    (head,) = messages(blocks, [("Content-Length", "0" if method == "GET" else "2")], method)
    assert head.endswith(b"\r\n\r\n")


def test_a_large_block_is_not_copied():
    """A large first block is sent as it is, behind its head."""
    head, block = messages([bytes(100_000)], [("Content-Length", "100000")])
    assert head.endswith(b"\r\n\r\n")
    assert block == bytes(100_000)


def test_other_start_responses_are_left_alone():
    """What is no method of gunicorn's response, as behind a middleware, is not touched."""
    send_at_once(print)


def test_settings_are_those_of_gunicorn():
    """A setting is what gunicorn's own object says, also after a hook has changed it."""
    cfg = Config()
    quick = QuickSettings(cfg)
    assert quick.keepalive == cfg.keepalive
    assert quick.forwarded_allow_networks() == cfg.forwarded_allow_networks()
    quick.set("keepalive", 77)
    assert quick.keepalive == cfg.keepalive == 77
    assert not hasattr(quick, "no_such_setting")
