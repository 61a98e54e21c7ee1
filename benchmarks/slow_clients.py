"""What others feel of clients that are slow on purpose: p99 of a small request, quiet and beside each kind.

make slow-clients                      the table of docs/reliability.md, some four minutes
make slow-clients ARGS='heads tls'     only these
"""

import contextlib
import http.client
import socket
import ssl
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import click
from certificates import self_signed
from harness import APPS, Gunicorn, Pool, RedisServer, environment, until
from rows import GEVENT_OURS

#: Requests of one measurement.
PROBES = 300
NAME = "slow-clients"
MADE_UP = f"/fast?__wsgi_timeout_call=fc-{'a' * 22}.{'b' * 32}&__wsgi_timeout_hop=1"
MIB = 1024 * 1024


def post(target, size):
    return f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()


def get(target):
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


@dataclass(frozen=True)
class Kind:
    """So many connections that each begin alike, and then send or read a little again and again."""

    what: str
    count: int
    begin: bytes
    drop: bytes = b""
    pause_seconds: float = 0.2
    #: Bytes of a read; 0: nothing is read.
    read: int = 0
    tls: bool = False
    #: More of the environment.
    settings: tuple = ()


KINDS = {
    "readers": Kind("2 read 40 MB at 20 KB/s", 2, get("/big?size=40000000"), read=4096),
    "uploads": Kind(
        "2 send 20 MB, the last of it drop by drop",
        2,
        post("/slow?seconds=0", 20_000_000) + b"x" * 17_500_000,
        b"x" * 20,
    ),
    "heads": Kind("420 half heads", 420, b"GET /fast HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"y", 3),
    "made-up": Kind("420 drip a body to a made-up result URL", 420, post(MADE_UP, 60_000), b"y", 3),
    "drips": Kind("205 drip an upload", 205, post("/slow?seconds=0", 60_000), b"y", 3),
    "tls": Kind("420 half TLS hellos", 420, b"\x16\x03\x01\x02\x00\x01\x00", b"\x01", 3, tls=True),
    "over": Kind(
        "2 read 40 MB at 20 KB/s, `max_result` 20 MB, `max_response_file` 1 GB",
        2,
        get("/big?size=40000000"),
        read=4096,
        settings=(
            ("WSGI_TIMEOUT_MAX_RESULT", "20000000"),
            ("WSGI_TIMEOUT_BUFFER", "10000000"),
            ("WSGI_TIMEOUT_MAX_RESPONSE_FILE", "1000000000"),
        ),
    ),
}


HEADER = (
    "| slow clients | worker class | p50, p99 quiet | p50, p99 beside them | times p99 |\n"
    "|---|---|---|---|---|"
)


@click.command()
@click.argument("names", nargs=-1)
def main(names):
    """Print a table: kinds of slow clients, and what others feel with each of our worker classes."""
    click.echo(HEADER)
    server = RedisServer()
    try:
        for name in names or KINDS:
            for worker_class, options in (("gthread", ()), ("gevent", GEVENT_OURS)):
                click.echo(measure(server, KINDS[name], worker_class, options))
    finally:
        server.close()


def measure(server, kind, worker_class, options):
    """Return one row."""
    with tempfile.TemporaryDirectory() as folder:
        tls = certificate(Path(folder)) if kind.tls else ()
        env = {**environment(log_level="ERROR"), **dict(kind.settings), "RUNS_FILE": f"{folder}/runs"}
        pool = Pool("basic:app", NAME, server.url, "--processes", "2", env=env, cwd=APPS)
        app = f"wsgi_timeout:gateway('basic:app', name={NAME!r})"
        web = Gunicorn(app, server.url, *options, *tls, env=env, cwd=APPS)
        try:
            until(lambda: seconds_of(web.port, tls=kind.tls), what="a first answer")
            before = probe(web.port, tls=kind.tls)
            with beside(web.port, kind):
                during = probe(web.port, tls=kind.tls)
            until(lambda: seconds_of(web.port, tls=kind.tls), what="an answer")
            quiet = before + probe(web.port, tls=kind.tls)
        finally:
            web.stop()
            pool.stop()
    times = p99(during) / p99(quiet)
    return f"| {kind.what} | {worker_class} | {figures(quiet)} | {figures(during)} | {times:.1f} |"


@contextlib.contextmanager
def beside(port, kind):
    """Have the clients of a kind there while the block runs."""
    stopped, clients = threading.Event(), []

    def go_on():
        while not stopped.wait(kind.pause_seconds):
            for sock in tuple(clients):
                with contextlib.suppress(OSError):
                    if kind.drop:
                        sock.send(kind.drop)
                    if kind.read:
                        sock.recv(kind.read)

    going = threading.Thread(target=go_on, daemon=True)
    try:
        for _ in range(kind.count):
            sock = socket.socket()
            if kind.read:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sock.settimeout(30)
            sock.connect(("127.0.0.1", port))
            clients.append(sock)
            sock.sendall(kind.begin)
            sock.settimeout(0.05)
        going.start()
        time.sleep(3)
        yield
    finally:
        stopped.set()
        for sock in clients:
            sock.close()


def probe(port, *, tls):
    """Return the seconds of `PROBES` requests, one after the other, each on a connection of its own."""
    return [seconds_of(port, tls=tls) for _ in range(PROBES)]


def seconds_of(port, *, tls):
    """Return the seconds of one small request; 60 for one that is not answered with 200."""
    began = time.perf_counter()
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("GET", "/fast", headers={"Connection": "close"})
        if connection.getresponse().status == 200:
            return time.perf_counter() - began
    return 60.0


def p99(seconds):
    return statistics.quantiles(seconds, n=100)[98]


def figures(seconds):
    return f"{statistics.median(seconds) * 1000:.0f} ms, {p99(seconds) * 1000:.0f} ms"


def certificate(folder):
    """Return gunicorn's options for a certificate of its own making."""
    key, made = self_signed(folder)
    return ("--keyfile", str(key), "--certfile", str(made))


if __name__ == "__main__":
    main()
