"""The process that answers Prometheus for a pool.

python -m wsgi_timeout_jobs.pool.metrics_server FD PID     a listening socket, and the pool
"""

from __future__ import annotations

import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from wsgi_timeout.watching.exposition import Exposition
from wsgi_timeout_jobs.process.dies_with_parent import die_with_parent


class _Handler(BaseHTTPRequestHandler):
    exposition: Exposition
    timeout = 10  # seconds; clients are answered one after the other

    def do_GET(self) -> None:
        content_type, body = self.exposition.answer()
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing of scrapes."""


def main(descriptor: int, parent: int) -> None:
    """Answer scrapes on a listening socket until the pool ends."""
    die_with_parent(parent)
    _Handler.exposition = Exposition(os.environ["REDIS_URL"])
    server = HTTPServer(("", 0), _Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=descriptor)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
