"""A socket whose time limit the kernel keeps behaves as one with Python's own."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from wsgi_timeout.store.timed_socket import TimedSocket, timed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems keep Python's limits")


@pytest.fixture
def pair():
    """Return a timed socket, made in a thread, and its peer."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20.0)
    with ThreadPoolExecutor(1) as thread:
        ours = thread.submit(timed, ours).result()
    with ours, theirs:
        yield ours, theirs


def test_what_comes_is_received(pair):
    """Bytes, and the end, are received as from any socket."""
    ours, theirs = pair
    assert type(ours) is TimedSocket
    assert ours.gettimeout() == 20.0
    theirs.sendall(b"abc")
    buffer = bytearray(10)
    assert ours.recv_into(buffer) == 3
    theirs.sendall(b"de")
    assert ours.recv(10) == b"de"
    theirs.close()
    assert ours.recv(10) == b""


def test_silence_ends_at_the_limit(pair):
    """A peer that sends nothing, or takes nothing, is a `TimeoutError` at the limit."""
    ours, _ = pair
    ours.settimeout(0.01)
    with pytest.raises(TimeoutError):
        ours.recv_into(bytearray(10))
    with pytest.raises(TimeoutError):
        ours.recv(10)
    with pytest.raises(TimeoutError):
        ours.sendall(bytes(50_000_000))


def test_without_blocking(pair):
    """A limit of 0, and the flag for one call, do not block; the limit can be set again."""
    ours, theirs = pair
    with pytest.raises(BlockingIOError):
        ours.recv(10, socket.MSG_DONTWAIT)
    ours.settimeout(0)
    assert ours.gettimeout() == 0
    with pytest.raises(BlockingIOError):
        ours.recv(10)
    ours.settimeout(20.0)
    theirs.sendall(b"abc")
    assert ours.recv(10) == b"abc"


def test_signals_keep_pythons_limit():
    """In the main thread, where a signal would begin a limit anew, a socket stays as it is."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert timed(ours) is ours
