"""`wsgi-timeout serve`: an embedded Redis, gunicorn and a pool of workers, started and stopped together."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import redis

from wsgi_timeout import target as targets
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.http.routes import Routes
from wsgi_timeout.serving.embedded_redis import EmbeddedServer, state_folder, terminate_with_parent
from wsgi_timeout.settings import RESERVE_THREADS, SECRET_VARIABLE, Settings, environment_of
from wsgi_timeout.store.connection import connect, without_password

_STOP_SECONDS = 35.0
_POLL_SECONDS = 0.02
#: After so many seconds of importing the app, a line says what one waits for.
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line says."""

    target: str
    bind: str = "127.0.0.1:8000"
    name: str | None = None
    processes: int = 2
    threads: int = 1
    web_threads: int | None = None
    function_processes: int = 2
    spare: int = 0
    data_dir: str | None = None
    only: tuple[str, ...] = ()
    except_: tuple[str, ...] = ()
    reload: bool = False
    #: Settings given as options; None: not given.
    settings: dict[str, Any] = field(default_factory=dict)


def serve(options: ServeOptions, say: Callable[[str], None]) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, or until a part dies; returns the exit code.

    `say` prints a line for the user. Raises `ConfigurationError`.
    """
    targets.name_of(options.target)  # these complain here, before anything is started
    settings = _settings(options)
    sock = _listen(options.bind)
    stop = _StopFlag()
    server: EmbeddedServer | None = None
    parts: list[_Part] = []
    try:
        url = os.environ.get("REDIS_URL", "")
        if url:
            _ping(url)
        else:
            server = _embedded(options)
            url = server.url
        environment = {**os.environ, **environment_of(settings), "REDIS_URL": url}
        if not environment.get(SECRET_VARIABLE):
            environment[SECRET_VARIABLE] = _secret(options, server)
        pool = _start_pool(options, environment)
        parts.append(pool)
        name = _wait_until_ready(pool, stop, say)
        if not name:
            return 0 if stop.asked else 1
        parts.insert(0, _start_gunicorn(options, name, environment, sock))
        _announce(options, name, settings, sock, server, say)
        return _watch(parts, server, stop, say)
    finally:
        sock.close()
        # The web half first, so that nothing new is accepted; Redis last: workers still write to it.
        for part in parts:
            part.stop(stop)
        if server:
            server.stop()


class _StopFlag:
    """Set by SIGINT, SIGTERM or SIGHUP; a pipe wakes whoever selects. A second one is in a hurry."""

    def __init__(self) -> None:
        self.asked = False
        #: Do not wait for what still runs.
        self.hurry = False
        self.pipe, self._write = os.pipe()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)
        # What a terminal sends when it is closed; `nohup` has it ignored.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._ask)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        # The kernel and the shell may each send a SIGHUP.
        self.hurry = self.hurry or (self.asked and number != signal.SIGHUP)
        self.asked = True
        os.write(self._write, b".")


class _Part:
    """One child process and its children, in a session of their own: Ctrl-C reaches only us."""

    def __init__(
        self, what: str, command: list[str], environment: dict[str, str], pass_fds: tuple[int, ...]
    ) -> None:
        self.what = what
        #: Where the pool says that it has loaded the app.
        self.ready_pipe = -1
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=terminate_with_parent,  # noqa: PLW1509 - no thread runs here
        )

    def stop(self, flag: _StopFlag) -> None:
        """End it and wait: as long as it needs, up to a limit, or until somebody is in a hurry."""
        if self.process.poll() is None:
            self.process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        while self.process.poll() is None:
            if flag.hurry or time.monotonic() > deadline:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            time.sleep(_POLL_SECONDS)


def _settings(options: ServeOptions) -> dict[str, Any]:
    settings = dict(options.settings)
    if options.web_threads is not None:
        reserve = min(RESERVE_THREADS, max(1, options.web_threads // 4))
        settings["max_waiting"] = max(1, options.web_threads - reserve)
    # Complains here, not in a child.
    if options.name:
        targets.check_name(options.name)
    Routes(Settings.load(**settings), only=options.only, except_=options.except_)
    return settings


def _listen(bind: str) -> socket.socket:
    host, colon, port = bind.rpartition(":")
    host = host.strip("[]") or "0.0.0.0"  # as gunicorn reads ":8000"
    if not (colon and port.isdigit()):  # a port alone must not mean every address
        raise ConfigurationError(f"--bind {bind!r}: write HOST:PORT, as in 127.0.0.1:8000")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        sock = socket.create_server((host, int(port)), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        # create_server() adds words of its own to an errno's; getaddrinfo()'s numbers are below zero.
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"cannot listen on {bind}: {reason}; choose another with --bind HOST:PORT"
        ) from None
    sock.set_inheritable(True)
    return sock


def _ping(url: str) -> None:
    client = connect(url, connections=1)
    try:
        client.ping()
    except (redis.exceptions.RedisError, OSError) as error:
        raise ConfigurationError(
            f"REDIS_URL={without_password(url)!r} cannot be reached: {error}; start that server, "
            "or unset REDIS_URL to use an embedded one"
        ) from None
    finally:
        client.close()


def _embedded(options: ServeOptions) -> EmbeddedServer:
    folder = Path(options.data_dir).absolute() if options.data_dir else state_folder(options.target)
    server = EmbeddedServer(folder, alone=options.data_dir is not None)
    try:
        server.start()
    except ConfigurationError:
        server.stop()
        raise
    return server


def _secret(options: ServeOptions, server: EmbeddedServer | None) -> str:
    """Return the secret that signs payloads: made once, kept beside the data, so that they stay readable."""
    folder = server.folder if server else state_folder(options.target)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "secret"
        if not path.exists():
            _keep_new_secret(path)
        return path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"the secret in {folder} cannot be kept: {error}; set {SECRET_VARIABLE}"
        ) from None


def _keep_new_secret(path: Path) -> None:
    # Linked when it is whole: another serve may begin in this moment, and a disk be full.
    draft = path.with_name(f"secret-{os.getpid()}")
    draft.touch(mode=0o600)
    try:
        draft.write_text(secrets.token_hex(32))
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()


def _start_pool(options: ServeOptions, environment: dict[str, str]) -> _Part:
    read, write = os.pipe()
    command = [sys.executable, "-m", "wsgi_timeout.serving.cli", "worker", options.target]
    command += ["--name", options.name] if options.name else []
    command += ["--processes", str(options.processes), "--threads", str(options.threads)]
    command += ["--function-processes", str(options.function_processes), "--spare", str(options.spare)]
    command += ["--ready-fd", str(write), *(["--reload"] if options.reload else [])]
    part = _Part("the worker pool", command, environment, (write,))
    os.close(write)
    part.ready_pipe = read
    return part


def _wait_until_ready(pool: _Part, stop: _StopFlag, say: Callable[[str], None]) -> str:
    """Wait until a worker has loaded the target; return its name, empty if it cannot, or at a stop."""
    pipes = [pool.ready_pipe, stop.pipe]
    readable, _, _ = select.select(pipes, [], [], _PATIENCE_SECONDS)
    if not readable:
        say("no worker has imported the app yet: nothing is served before that")
        readable, _, _ = select.select(pipes, [], [])
    # A pool that ends closes its end of the pipe: readable, and empty.
    name = os.read(pool.ready_pipe, 4096).decode().strip() if pool.ready_pipe in readable else ""
    os.close(pool.ready_pipe)
    return "" if stop.asked else name


def _start_gunicorn(
    options: ServeOptions, name: str, environment: dict[str, str], sock: socket.socket
) -> _Part:
    routes = f"only={options.only!r}, except_={options.except_!r}"
    app = f"wsgi_timeout:gateway({options.target!r}, name={name!r}, {routes})"
    bind = f"fd://{sock.fileno()}"
    command = [sys.executable, "-m", "gunicorn", "-c", "python:wsgi_timeout.gunicorn_conf", "-b", bind]
    command += ["--log-level", "warning"]
    command += ["--threads", str(options.web_threads)] if options.web_threads else []
    command += ["--reload"] if options.reload and _loads_app(options) else []
    command += [app]
    return _Part("the web server", command, environment, (sock.fileno(),))


def _loads_app(options: ServeOptions) -> bool:
    return bool(options.only or options.except_)


def _announce(
    options: ServeOptions,
    name: str,
    settings: dict[str, Any],
    sock: socket.socket,
    server: EmbeddedServer | None,
    say: Callable[[str], None],
) -> None:
    host, port = sock.getsockname()[:2]
    loaded = Settings.load(**settings)
    say(f"serving {options.target} on http://{f'[{host}]' if ':' in host else host}:{port}/  (Ctrl-C stops)")
    say(f"  queue wt:{name}, {options.processes} worker processes, {options.threads} thread(s) each")
    if loaded.wait_for_response:
        say(f"  a request waits up to {loaded.wait_seconds:g} s, then is redirected (303) to its result URL")
    else:
        say("  a request is answered at once, with 202 and a result URL")
    if server:
        say(f"  embedded server, data in {server.folder}")
        say(f"  to look inside: rq info --url {server.url}")
    elif not os.environ.get(SECRET_VARIABLE):
        say(f"  the secret of its functions is kept in {state_folder(options.target)}")
    if Path("gunicorn.conf.py").exists():
        say("  note: ./gunicorn.conf.py is yours and is not read here")


def _watch(
    parts: list[_Part], server: EmbeddedServer | None, stop: _StopFlag, say: Callable[[str], None]
) -> int:
    while not stop.asked:
        select.select([stop.pipe], [], [], 0.25)
        ended = [part.what for part in parts if part.process.poll() is not None]
        if server and server.process and server.process.poll() is not None:
            ended.append("the embedded server")
        if ended and not stop.asked:
            # Without Redis no worker can record what it still does.
            stop.hurry = "the embedded server" in ended
            say(f"{' and '.join(ended)} ended unexpectedly: stopping all")
            return 1
    say("stopping: web server, workers" + (", embedded server" if server else "") + " (again to hurry)")
    return 0
