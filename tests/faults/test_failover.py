"""A failover in which the old primary lives on as a replica, under the same connections: a managed Redis."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from harness import Process, ask, follow, until
from watched import free_port

from wsgi_timeout.serving.embedded_redis import find_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Server:
    """A server on a port, for its replica, and on a unix socket."""

    def __init__(self, folder):
        folder.mkdir()
        self.socket, self.port = folder / "s", free_port()
        places = (
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--unixsocket",
            self.socket,
            "--dir",
            folder,
        )
        options = ("--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0")
        self.process = Process([find_server(), *places, *options])
        self.client = redis.Redis(port=self.port)
        until(self._answers, what="a server")

    def _answers(self):
        try:
            return self.client.ping()
        except redis.exceptions.ConnectionError:
            return False

    def follows(self):
        return self.client.info("replication").get("master_link_status") == "up"

    def used_by(self):
        """Return the commands of those who are connected, but for replication and this test."""
        own = self.client.client_id()
        return [
            there["cmd"]
            for there in self.client.client_list()
            if not set(there["flags"]) & {"S", "M"} and there["id"] != str(own)
        ]


class Pair:
    """Two servers; what `url` names is a link that leads to the primary."""

    def __init__(self, folder):
        self._name = folder / "name"
        self.url = f"unix://{self._name}"
        self.old, self.new = Server(folder / "old"), Server(folder / "new")
        self.new.client.replicaof("127.0.0.1", self.old.port)
        until(self.new.follows, what="a replica")
        self._name.symlink_to(self.old.socket)
        self.client = self.old.client

    def fail_over(self):
        """Have the replica take over as a managed Redis does; the primary becomes its replica."""
        self.old.client.client_pause(1000, all=False)
        assert self.old.client.wait(1, 5000) == 1
        self._name.unlink()
        self._name.symlink_to(self.new.socket)
        self.new.client.replicaof("NO", "ONE")
        self.old.client.replicaof("127.0.0.1", self.new.port)
        self.client = self.new.client

    def close(self):
        for server in (self.old, self.new):
            server.client.close()
            server.process.stop()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    pair = Pair(tmp_path_factory.mktemp("pair"))
    yield pair
    pair.close()


def test_both_halves_follow(deploy, redis_server, seen):
    """Web processes and workers leave the old primary; what ran is answered, and what is new is served."""
    site = deploy(pool=("--processes", "2", "--threads", "2"), wait_seconds=3, lease_seconds=10)
    with ThreadPoolExecutor() as threads:
        held = [
            threads.submit(follow, site.web.port, f"/slow?seconds=4&tag=held{n}", "POST", timeout=60)
            for n in range(3)
        ]
        until(lambda: all(site.runs(f"held{n}") for n in range(3)), what="their start")
        redis_server.fail_over()
        began = time.monotonic()
        until(lambda: ask(site.web.port, "/fast").status == 200, what="service")
        seen("a new request is served", [time.monotonic() - began])
        until(lambda: not redis_server.old.used_by(), what="the end of every connection to the old one")
        seen("both halves have left the old one", [time.monotonic() - began])
        assert [call.result()[-1].status for call in held] == [200] * 3
    assert [len(site.runs(f"held{n}")) for n in range(3)] == [1] * 3
