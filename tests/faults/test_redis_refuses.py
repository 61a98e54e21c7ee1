"""A Redis that is there and refuses: by a password, rights, too many clients, a pause, while it loads."""

import hashlib
import signal
import time
from array import array
from concurrent.futures import ThreadPoolExecutor

import harness
import psutil
import pytest
import redis
from harness import RedisServer, ask, follow, until

LEASE = 2.0
#: Seconds in which a new request is refused, and in which all is well again afterwards.
REFUSED, BACK = 20.0, 10.0
#: Larger than what travels with a call.
LARGE = array("Q", range(25_000)).tobytes()

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    """A server that survives a write beyond the size that its files may have, as on a disk that is full."""
    script = tmp_path_factory.mktemp("server") / "server"
    script.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {harness.find_server()} \"$@\"\n", encoding="utf-8")
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "find_server", lambda: script)
        server = RedisServer()
        yield server
    server.close()


@pytest.fixture(scope="module")
def site(deploy, proxy):
    options = ("--processes", "2", "--threads", "3")
    return deploy(server=proxy, pool=options, wait_seconds=3, worker_wait=1, lease_seconds=LEASE)


@pytest.fixture
def aside():
    with ThreadPoolExecutor(10) as threads:
        yield threads


class Wrong:
    """A Redis to which something is done, by its only friend: a connection made before it."""

    def __init__(self, server, proxy):
        self._server = server
        self._proxy = proxy
        self._client = redis.Redis(connection_pool=server.client.connection_pool)
        self._limit = int(self._client.config_get("maxclients")["maxclients"])

    def password(self):
        """Demand a password that nobody knows, of the open connections too, as after a restart with one."""
        self._client.config_set("requirepass", "changed")
        self._proxy.cut()

    def rights(self):
        """Take the right to write away."""
        self._client.acl_setuser(
            "default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-@write"]
        )

    def clients(self):
        """Have no room for any other client."""
        self._client.config_set("maxclients", 1)
        self._proxy.cut()

    def writes(self):
        """Leave each write unanswered, and answer each read."""
        self._client.execute_command("CLIENT", "PAUSE", "600000", "WRITE")

    def disk(self):
        """Let its file grow no more."""
        size = max(file.stat().st_size for file in self._server.folder.glob("appendonlydir/*.incr.aof"))
        self._limit_files(size)
        until(self._refuses, what="the refusal of a write")

    def _limit_files(self, size):
        process = psutil.Process(self._server.process.pid)
        process.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))

    def _refuses(self):
        try:
            self._client.set("any", "x" * 100, ex=1)
        except redis.exceptions.ResponseError as error:
            return "MISCONF" in str(error)
        return False

    def mend(self):
        if hasattr(psutil, "RLIMIT_FSIZE"):
            self._limit_files(psutil.RLIM_INFINITY)
        self._client.execute_command("CLIENT", "UNPAUSE")
        self._client.config_set("maxclients", self._limit)
        self._client.config_set("requirepass", "")
        self._client.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all"])


@pytest.fixture
def wrong(redis_server, proxy):
    wrong = Wrong(redis_server, proxy)
    yield wrong
    wrong.mend()


@pytest.mark.timeout(40)
@pytest.mark.parametrize("what", ["password", "rights", "clients", "writes", "disk"])
@pytest.mark.slow
def test_who_lets_nobody_in_only_delays(site, wrong, aside, gate, seen, what):
    """For longer than a lease: 503 for new requests; what runs is delivered, once, when all is well again."""
    port, workers = site.web.port, {worker.pid for worker in site.pool.workers()}
    tags = [f"{what}-{kind}" for kind in ("get", "post", "stream")]
    waiting = [
        aside.submit(follow, port, f"/gate?tag={tags[0]}&file={gate}"),
        aside.submit(follow, port, f"/hash?tag={tags[1]}&file={gate}", "POST", body=LARGE),
        aside.submit(follow, port, f"/numbers?tag={tags[2]}&size={len(LARGE)}&file={gate}"),
    ]
    until(lambda: all(site.runs(tag) for tag in tags), 20, "all at work")
    getattr(wrong, what)()
    began = time.monotonic()
    took = []
    while time.monotonic() - began < 2 * LEASE:
        asked = time.monotonic()
        refused = ask(port, f"/fast?tag={what}-new")
        took.append(time.monotonic() - asked)
        assert (refused.status, refused.header("Retry-After")) == (503, "5"), refused
        gate.touch()
    wrong.mend()
    back = time.monotonic()
    get, post, stream = (future.result()[-1] for future in waiting)
    seen(f"{what}: until a new request was refused", took)
    seen(f"{what}: until the last answer, from its end", [time.monotonic() - back])
    assert time.monotonic() - back < BACK
    assert get.text == f"passed {tags[0]}\n"
    assert post.json == {"length": len(LARGE), "sha256": hashlib.sha256(LARGE).hexdigest()}
    assert (stream.status, stream.body == LARGE) == (200, True)
    assert max(took) < REFUSED
    assert until(lambda: ask(port, "/fast").status == 200, BACK, "a new request's answer")
    assert [len(site.runs(tag)) for tag in (*tags, f"{what}-new")] == [1, 1, 1, 0]
    assert workers <= {worker.pid for worker in site.pool.workers()}


def test_a_redis_that_loads_for_long_only_delays(site, redis_server, aside, gate, seen):
    """Redis is killed, and loads its file for longer than a lease: 503 for what is new; what runs arrives."""
    port = site.web.port
    waiting = [
        aside.submit(follow, port, f"/gate?tag=loading-get&file={gate}"),
        aside.submit(follow, port, f"/hash?tag=loading-post&file={gate}", "POST", body=LARGE),
    ]
    until(lambda: site.runs("loading-get") and site.runs("loading-post"), 20, "both at work")
    pipe = redis_server.client.pipeline(transaction=False)
    # It looks at its connections after each 1024 commands.
    for number in range(6 * 1024):
        pipe.set(f"load{number}", "", ex=60)
    pipe.execute()
    redis_server.stop(signal.SIGKILL)
    # Microseconds for each command in its file.
    back = aside.submit(redis_server.start, "--key-load-delay", "500")
    until(lambda: says_loading(redis_server), what="the load")
    while not back.done():
        refused = ask(port, "/fast?tag=loading-new")
        if not back.done():
            assert (refused.status, refused.header("Retry-After")) == (503, "5"), refused
        gate.touch()
    back.result()
    began = time.monotonic()
    get, post = (future.result()[-1] for future in waiting)
    seen("until the last answer, from the end of the load", [time.monotonic() - began])
    assert time.monotonic() - began < BACK
    assert get.text == "passed loading-get\n"
    assert post.json == {"length": len(LARGE), "sha256": hashlib.sha256(LARGE).hexdigest()}
    assert [len(site.runs(f"loading-{kind}")) for kind in ("get", "post")] == [1, 1]


def says_loading(server):
    with redis.Redis.from_url(server.url, retry=None) as client:
        try:
            return not client.ping()
        except redis.exceptions.BusyLoadingError:
            return True
        except redis.exceptions.ConnectionError:
            return False
