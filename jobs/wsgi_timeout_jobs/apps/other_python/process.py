"""The app process of a worker: it starts and ends with the worker."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.target_hints import hint
from wsgi_timeout_jobs.apps.other_python.frames import frame, read_frame, unpack
from wsgi_timeout_jobs.process.dies_with_parent import die_with_parent
from wsgi_timeout_jobs.process.end_as import end_as

log = logging.getLogger("wsgi_timeout.worker")

_HOST = Path(__file__).with_name("app_host.py")
#: Environment variables by which another interpreter would find this one's packages.
_OF_THIS_PYTHON = ("PYTHONHOME", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__")
_REPORT_BYTES = 8192


class AppChanged(SystemExit):
    """With `--reload`: the app could not be loaded, and its files have changed since."""


class AppProcess:
    """A process that runs the app, and a connection to it for each thread."""

    def __init__(self, python: str, target: str, threads: int, *, reload: bool) -> None:
        """Start it, and wait until it has loaded the app.

        Raises `ConfigurationError` if there is no such interpreter or target, and `AppChanged`.
        """
        self.target = target
        self._python = python
        self._reload = reload
        self._stopping = False
        #: What the app's own `RequestTimeouts` says, see `OtherPythonApp.own_front`.
        self.own_front: tuple[str, bool] | None = None
        pairs = [socket.socketpair() for _ in range(threads)]
        self.reports, reports = socket.socketpair(type=socket.SOCK_DGRAM)
        self._process = self._start([reports, *(theirs for _, theirs in pairs)])
        for each in (reports, *(theirs for _, theirs in pairs)):
            each.close()
        self.connections = [Connection(ours, self) for ours, _ in pairs]
        try:
            self._wait_until_loaded()
        except BaseException:
            self.stop()
            for each in (self.reports, *(ours for ours, _ in pairs)):
                each.close()
            raise
        threading.Thread(target=self._watch, name="wsgi-timeout-app", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def interrupt(self) -> None:
        """Raise `CallInterrupted` in the handler; only for an app process with one thread."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR2)

    def stop(self) -> None:
        """End the process in order: functions that the app has registered with `atexit` run."""
        self._stopping = True
        for connection in self.connections:
            connection.close()
        self._process.wait()

    def died(self) -> NoReturn:
        """End this worker, whose app process has died; the pool recovers its calls."""
        code = self._process.wait()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        log.error("the app's process %d (%s) ended %s, and its worker with it", self.pid, self._python, how)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        end_as(code)

    def _start(self, theirs: list[socket.socket]) -> subprocess.Popen[bytes]:
        descriptors = [each.fileno() for each in theirs]
        mode = "reload" if self._reload else "stay"
        command = [self._python, str(_HOST), self.target, mode, *map(str, descriptors)]
        parent = os.getpid()
        try:
            return subprocess.Popen(
                command,
                pass_fds=descriptors,
                env=_environment(os.environ),
                preexec_fn=lambda: die_with_parent(parent),  # noqa: PLW1509 - no thread runs here
            )
        except OSError as error:
            raise ConfigurationError(
                f"--python {self._python!r} does not start: {error.strerror}; name an interpreter, as in "
                "/srv/app/venv/bin/python"
            ) from None

    def _wait_until_loaded(self) -> None:
        found = read_frame(self.connections[0].stream)
        if found is None:
            raise ConfigurationError(
                f"--python {self._python!r} ended with {self._process.wait()} before it had loaded "
                f"{self.target!r}: it must be CPython 2.7, or 3.6 or newer"
            )
        kind, payload = found
        texts = [part.decode("utf-8", "replace") for part in unpack(payload)]
        if kind == b"R":
            self.own_front = (texts[1], bool(texts[2])) if texts[1:] else None
            log.info("the app runs under Python %s, %s, in process %d", texts[0], self._python, self.pid)
            return
        if texts[0] == "target":
            raise ConfigurationError(texts[1] + hint(self.target, *texts[2:]))
        if self._reload:
            log.error("importing %r failed, see above: waiting for an edit", self.target)
            self._process.wait()
            raise AppChanged
        raise ConfigurationError(f"importing {self.target!r} under {self._python} failed, see above")

    def _watch(self) -> None:
        # Not by an end of the connections: processes that the app has forked keep them open.
        self._process.wait()
        if not self._stopping:
            self.died()


class Connection:
    """Our end of one socket pair; one call at a time."""

    def __init__(self, ours: socket.socket, process: AppProcess) -> None:
        self.process = process
        self._socket = ours
        # Not by `makefile`, which reads in Python: it costs a tenth of what a small call costs here.
        self.stream: Any = os.fdopen(ours.fileno(), "rb", 256 * 1024, closefd=False)
        self.send_bytes: Any = ours.sendall

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send a frame; a broken connection means that the app process has died, and ends this worker."""
        try:
            self.send_bytes(frame(kind, payload))
        except OSError:
            self.process.died()

    def receive(self) -> tuple[bytes, bytes]:
        """Return the next frame."""
        try:
            found = read_frame(self.stream)
        except OSError:
            found = None
        if found is None:
            self.process.died()
        return found

    def close(self) -> None:
        # `close` alone would not wake a thread that reads from it.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in ours.items() if key not in _OF_THIS_PYTHON}
