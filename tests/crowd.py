"""Many clients that wait at once."""

import select
import socket
import time

from harness import calls_accepted, until


class Crowd:
    """Clients that have sent their request and wait."""

    def __init__(self, site, port, gate, size):
        self._site = site
        self._port = port
        self._target = f"/gate?file={gate}"
        self.clients = []
        self.add(size)

    def _enqueued(self):
        return calls_accepted(self._site.redis.client, self._site.name)

    def add(self, count=1):
        """Add clients; returns when their calls were accepted."""
        accepted = self._enqueued() + count
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", self._port), timeout=50)
            client.sendall(f"GET {self._target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            self.clients.append(client)
        until(lambda: self._enqueued() == accepted, 30, "the acceptance of all calls")

    def answered(self):
        """Return the clients that have an answer, or an end."""
        poll = select.poll()
        for client in self.clients:
            poll.register(client, select.POLLIN)
        return poll.poll(0)

    def answers(self):
        """Return all answers, and the seconds until the last of them was there."""
        began = time.monotonic()
        answers = [b"".join(iter(lambda client=client: client.recv(65536), b"")) for client in self.clients]
        return answers, time.monotonic() - began

    def close(self):
        for client in self.clients:
            client.close()
