"""A pool's metrics on a port, served by a process of its own, which answers also while the pool is busy."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time

from wsgi_timeout import metrics
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.watching.exposition import make_folder, remove_folder

log = logging.getLogger("wsgi_timeout.pool")

#: What that process runs; a pool without it need not import an HTTP server.
_SERVER = "wsgi_timeout_jobs.pool.metrics_server"
#: Seconds between two starts of that process.
_PAUSE_SECONDS = 5.0


class MetricsPort:
    """The process that answers Prometheus for a pool and its children."""

    def __init__(self, port: int, url: str) -> None:
        """Listen on a port of every address, for the pool that works against `url`.

        Raises `ConfigurationError` if the port is taken, or prometheus-client is not installed.
        """
        # This pool does not report the metrics of web processes or other pools on this machine.
        os.environ.pop(metrics.FOLDER_VARIABLE, None)
        make_folder()
        metrics.start()
        self._url = url
        self._next_start = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._sock = socket.create_server(("", port))
        except OSError as error:
            remove_folder()
            why = os.strerror(error.errno or 0)
            raise ConfigurationError(f"--metrics-port {port}: {why}; give another one") from None
        log.info("metrics on port %d", self._sock.getsockname()[1])

    def keep(self) -> None:
        """Start the process if it does not run."""
        if time.monotonic() < self._next_start or (self._process and self._process.poll() is None):
            return
        self._next_start = time.monotonic() + _PAUSE_SECONDS
        command = [sys.executable, "-m", _SERVER, str(self._sock.fileno()), str(os.getpid())]
        env = {**os.environ, "REDIS_URL": self._url}
        self._process = subprocess.Popen(command, env=env, pass_fds=[self._sock.fileno()])

    def close(self) -> None:
        """End the process, and close the port."""
        self._sock.close()
        if self._process:
            self._process.terminate()
            self._process.wait()
        remove_folder()
