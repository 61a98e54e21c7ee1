"""A wall clock that jumps under Redis, the web processes and the workers: no call notices."""

import hashlib
import socket
import struct
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import RedisServer, ask, follow, preloaded, until

from wsgi_timeout.store import keys

LEASE = 2.0
LARGE = array("Q", range(200_000)).tobytes()
HOUR = 3600

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    """Return a function that moves the wall clock of all processes that are started meanwhile by seconds."""
    folder = tmp_path_factory.mktemp("clock")
    library, offset = preloaded(Path(__file__).with_name("clock.c"), folder), folder / "offset"

    def jump(seconds):
        with offset.open("r+b") as file:
            (before,) = struct.unpack("l", file.read())
            file.seek(0)
            file.write(struct.pack("l", before + seconds))

    offset.write_bytes(struct.pack("l", 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", library)
        patch.setenv("CLOCK_OFFSET", str(offset))
        yield jump


@pytest.fixture(scope="module")
def redis_server(clock):
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        pool=("--processes", "2", "--threads", "2"), wait_seconds=3, worker_wait=20, lease_seconds=LEASE
    )


@pytest.fixture
def aside():
    with ThreadPoolExecutor(20) as threads:
        yield threads


def moved(site, clock, seconds):
    """Move the clock; returns, when Redis has noticed, the time."""
    before = site.redis.client.time()[0]
    clock(seconds)
    until(lambda: abs(site.redis.client.time()[0] - before - seconds) < 60, what="the jump")
    return time.monotonic()


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_clock_that_jumps_moves_no_call(site, clock, aside, gate, seen, seconds):
    """What runs, waits and streams goes on, no lease is lost, none runs twice, new requests are served."""
    port, kinds = site.web.port, ("get", "post", "stream", "fills", "queued")
    tags = [f"{kind}{seconds}" for kind in kinds]
    get, post, stream, fills, queued = tags
    waiting = [
        aside.submit(follow, port, f"/gate?tag={get}&file={gate}"),
        aside.submit(follow, port, f"/hash?tag={post}&file={gate}", "POST", body=LARGE),
        aside.submit(follow, port, f"/numbers?tag={stream}&size={len(LARGE)}&file={gate}"),
        aside.submit(follow, port, f"/gate?tag={fills}&file={gate}"),
    ]
    for tag in tags[:-1]:
        until(lambda tag=tag: site.runs(tag), 20, f"the begin of {tag}")
    waiting.append(aside.submit(follow, port, f"/fast?tag={queued}", "POST"))
    until(lambda: site.redis.client.llen(f"rq:queue:wt:{site.name}") == 1, what="a queue")
    jumped = moved(site, clock, seconds)
    until(lambda: time.monotonic() - jumped > 2 * LEASE)
    assert not any(future.done() for future in waiting)
    gate.touch()
    opened = time.monotonic()
    answers = [future.result()[-1] for future in waiting]
    seen(f"all responses, {seconds / HOUR:+g} h", [time.monotonic() - opened])
    assert answers[0].text == f"passed {get}\n"
    assert answers[1].json == {"length": len(LARGE), "sha256": hashlib.sha256(LARGE).hexdigest()}
    assert (answers[2].status, answers[2].body == LARGE) == (200, True)
    assert [answer.text for answer in answers[3:]] == [f"passed {fills}\n", f"fast {queued}\n"]
    assert ask(port, "/fast").status == 200
    assert [len(site.runs(tag)) for tag in tags] == [1] * 5


def test_a_jump_under_an_upload_never_makes_it_look_whole(site, clock):
    """Chunks that expire by a jump before their call is queued: 503, and its handler never begins."""
    half = len(LARGE) // 2
    with socket.create_connection(("127.0.0.1", site.web.port), timeout=20) as sock:
        head = f"POST /hash?tag=early HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LARGE)}\r\n\r\n"
        sock.sendall(head.encode() + LARGE[:half])
        until(lambda: list(site.redis.client.scan_iter(keys.request_body("*"))), what="its first chunks")
        moved(site, clock, HOUR)
        sock.sendall(LARGE[half:])
        assert sock.recv(100).startswith(b"HTTP/1.1 503 ")
    assert not site.runs("early")
