"""A primary and its replica that three sentinels watch."""

import signal
import socket
import time

import redis
from harness import Process, until

from wsgi_timeout.serving.embedded_redis import find_server

PASSWORD, SENTINELS_PASSWORD = "of-servers", "of-sentinels"
#: Milliseconds for which a primary takes no more writes before it is killed.
_PAUSE_MS = 20_000
#: Seconds after a failover in which sentinels begin no other.
_BETWEEN_SECONDS = 12.0


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


class Watched:
    """Two servers; `url` names the sentinels only."""

    def __init__(self, folder):
        self._folder = folder
        self.ports = [free_port(), free_port()]
        self.processes = [self._server(port) for port in self.ports]
        for port in self.ports:
            until(self.client_of(port).ping, what="a server")
        self.client_of(self.ports[1]).replicaof("127.0.0.1", self.ports[0])
        until(lambda: self.role(1) == "slave", what="a replica")
        until(lambda: self._follows(1), 30, "a replica that follows")
        self._sentinel_ports = [free_port() for _ in range(3)]
        self.sentinels = [self._sentinel(port) for port in self._sentinel_ports]
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._sentinel_ports)
        self.url = f"redis+sentinel://:{PASSWORD}@{hosts}/site/0?sentinel_password={SENTINELS_PASSWORD}"
        until(
            lambda: all(self._knows_all(port) for port in self._sentinel_ports),
            30,
            "sentinels that know each other",
        )
        self._next_failover = 0.0

    @staticmethod
    def client_of(port):
        return redis.Redis(port=port, password=PASSWORD)

    def _server(self, port, *options):
        home = self._folder / str(port)
        home.mkdir(exist_ok=True)
        return Process(
            [
                *(find_server(), "--port", str(port), "--bind", "127.0.0.1", "--dir", home, "--save", ""),
                *("--appendonly", "yes", "--requirepass", PASSWORD, "--masterauth", PASSWORD),
                *("--repl-diskless-sync-delay", "0", *options),
            ]
        )

    def _sentinel(self, port):
        configuration = self._folder / f"sentinel-{port}.conf"
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder}\nrequirepass {SENTINELS_PASSWORD}\n"
            f"sentinel monitor site 127.0.0.1 {self.ports[0]} 2\nsentinel auth-pass site {PASSWORD}\n"
            "sentinel down-after-milliseconds site 4000\nsentinel failover-timeout site 5000\n"
        )
        return Process([find_server(), configuration, "--sentinel"])

    def _knows_all(self, port):
        try:
            seen = redis.Redis(port=port, password=SENTINELS_PASSWORD).sentinel_master("site")
        except redis.exceptions.ConnectionError:
            return False
        return seen["num-other-sentinels"] == 2 and seen["num-slaves"] == 1

    def role(self, number):
        return self.client_of(self.ports[number]).info("replication")["role"]

    def _follows(self, number):
        try:
            return self.client_of(self.ports[number]).info("replication").get("master_link_status") == "up"
        except redis.exceptions.ConnectionError:
            return False

    @property
    def primary(self):
        """The number of the server that is written to."""
        return next(number for number in (0, 1) if self.role(number) == "master")

    @property
    def client(self):
        return self.client_of(self.ports[self.primary])

    def named_primaries(self):
        """Return the port that each sentinel names."""
        clients = [redis.Redis(port=port, password=SENTINELS_PASSWORD) for port in self._sentinel_ports]
        return [int(client.sentinel_get_master_addr_by_name("site")[1]) for client in clients]

    def replace_primary(self):
        """Have the sentinels make the replica the primary while the old primary lives; until all know."""
        old = self.primary
        redis.Redis(port=self._sentinel_ports[0], password=SENTINELS_PASSWORD).sentinel_failover("site")
        until(lambda: set(self.named_primaries()) == {self.ports[1 - old]}, 30, "another primary")
        return old

    def kill_primary(self):
        self.processes[self.primary].stop(signal.SIGKILL)

    def fail_over(self):
        """Kill the primary when its replica has all that it acknowledged; wait until they are a pair again.

        Returns False while the sentinels would not act.
        """
        if time.monotonic() < self._next_failover:
            return False
        old = self.primary
        new = 1 - old
        client = self.client_of(self.ports[old])
        client.execute_command("CLIENT", "PAUSE", _PAUSE_MS, "WRITE")
        acknowledged = client.info("replication")["master_repl_offset"]
        replica = self.client_of(self.ports[new])
        until(
            lambda: replica.info("replication")["slave_repl_offset"] >= acknowledged, 10, "the replica's copy"
        )
        self.processes[old].stop(signal.SIGKILL)
        until(lambda: self.role(new) == "master", 60, "the replica as primary")
        self.processes[old] = self._server(self.ports[old], "--replicaof", "127.0.0.1", str(self.ports[new]))
        until(lambda: self._follows(old), 60, "the old primary as replica")
        self._next_failover = time.monotonic() + _BETWEEN_SECONDS
        return True

    def moves(self):
        """Return how often the sentinels have named another primary."""
        return self.sentinels[0].output.count("+switch-master")

    def close(self):
        for process in (*self.processes, *self.sentinels):
            process.stop(signal.SIGKILL)
