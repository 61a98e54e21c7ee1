"""A network that breaks: a proxy for one port that cuts its connections after so many bytes of an answer."""

import contextlib
import socket
import threading


class Breaking:
    """Passes connections on to `port`; each takes its number of bytes from `cuts`, and is cut after them."""

    def __init__(self, port, cuts=()):
        self.port_behind = port
        self.cuts = list(cuts)
        self.connections = 0
        self._open = set()
        #: The last bytes that were passed to a client.
        self.passed = bytearray()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.connections += 1
                limit = self.cuts.pop(0) if self.cuts else None
                threading.Thread(target=self._pass, args=(client, limit), daemon=True).start()

    def _pass(self, client, limit):
        try:
            server = socket.create_connection(("127.0.0.1", self.port_behind))
        except OSError:
            client.close()
            return
        if limit == 0:
            client.close()
            server.close()
            return
        with client, server, self._listed(client):
            threading.Thread(target=self._copy, args=(client, server, None), daemon=True).start()
            self._copy(server, client, limit, self.passed)

    @contextlib.contextmanager
    def _listed(self, client):
        self._open.add(client)
        try:
            yield
        finally:
            self._open.discard(client)

    def cut_open(self):
        """Cut the connections that there are."""
        for client in tuple(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _copy(source, sink, limit, passed=None):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536 if limit is None else min(65536, limit)):
                sink.sendall(piece)
                if passed is not None:
                    passed[:] = (passed + piece)[-4096:]
                if limit is not None:
                    limit -= len(piece)
                    if not limit:
                        break
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self):
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
