"""Load: one client in a row, many at a time, and crowds that wait."""

import http.client
import re
import resource
import selectors
import socket
import statistics
import subprocess
import time


def latency(port, count, path="/", headers=None):
    """Return the median seconds of `count` requests, one after the other on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times = []
    for _ in range(count):
        started = time.perf_counter()
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        times.append(time.perf_counter() - started)
        assert answer.status == 200, (answer.status, body)
    connection.close()
    return statistics.median(times)


def throughput(port, clients, seconds):
    """Return requests per second of `clients` that each send the next request when they are answered."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", f"http://127.0.0.1:{port}/"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in output, output
    assert "Socket errors" not in output, output
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert found, output
    return float(found[1])


class Crowd:
    """Clients that have each sent one request, and wait for the answer."""

    def __init__(self, port, count, path="/"):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._selector = selectors.EpollSelector()
        self._open = count
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        for number in range(count):
            client = socket.create_connection(("127.0.0.1", port), timeout=60)
            client.sendall(request)
            client.setblocking(False)
            self._selector.register(client, selectors.EVENT_READ, [number, b"", 0.0])

    def answers(self, seconds):
        """Read all answers to their end: `[(seconds of the first byte on the monotonic clock, bytes)]`."""
        deadline = time.monotonic() + seconds
        done = []
        while self._open:
            assert time.monotonic() < deadline, f"{self._open} clients were not answered in {seconds} s"
            for key, _ in self._selector.select(1):
                self._read(key, done)
        self._selector.close()
        return done

    def _read(self, key, done):
        now = time.monotonic()
        data = key.fileobj.recv(65536)
        entry = key.data
        entry[1] += data
        entry[2] = entry[2] or now
        if not data:
            self._selector.unregister(key.fileobj)
            key.fileobj.close()
            self._open -= 1
            assert entry[1].startswith(b"HTTP/1.1 200 "), entry[1][:300]
            done.append((entry[2], entry[1]))


class Unread:
    """Clients that have each sent one request, and read nothing of the answer until they leave."""

    def __init__(self, port, count, path):
        self._clients = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(count)]
        for client in self._clients:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client in self._clients:
            client.close()


def upload(port, path, size):
    """Return the seconds of one upload of so many bytes, until its answer is there."""
    piece = bytes(min(size, 256 * 1024))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    started = time.perf_counter()
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    for _ in range(size // len(piece)):
        connection.send(piece)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, (answer.status, body[:300])
    connection.close()
    return time.perf_counter() - started


def download(port, path, size):
    """Return the seconds of one download, which must have so many bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    started = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    count = 0
    while piece := answer.read(256 * 1024):
        count += len(piece)
    assert (answer.status, count) == (200, size)
    connection.close()
    return time.perf_counter() - started
