"""The child processes of `serve`: gunicorn and the pool of workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from wsgi_timeout.retrying import until
from wsgi_timeout.serving.embedded_redis import terminate_with_parent
from wsgi_timeout.serving.signals import Signals
from wsgi_timeout.settings import LOG_LEVEL_VARIABLE

_STOP_SECONDS = 35.0
_POLL_SECONDS = 0.02

#: What `-m` is without the current folder on the path, before Python 3.11 has -P.
_RUN_MODULE = (
    "import sys; del sys.path[0]; from runpy import run_module; "
    "run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


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
    python: str | None = None
    gunicorn_config: str | None = None
    #: Settings given as options; None: not given.
    settings: dict[str, Any] = field(default_factory=dict)


class Part:
    """One child process and its children, in a session of their own: Ctrl-C does not reach them.

    With `terminal` they stay in our session and can read standard input: Ctrl-C reaches them too.
    """

    def __init__(
        self,
        what: str,
        command: list[str],
        environment: dict[str, str],
        pass_fds: tuple[int, ...],
        *,
        terminal: bool = False,
    ) -> None:
        self.what = what
        self._terminal = terminal
        #: A pipe on which the pool tells that it has loaded the app; -1 after that.
        self.ready_pipe = -1
        #: Where the web server is told what to serve.
        self.begin_pipe = -1
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=None if terminal else subprocess.DEVNULL,
            pass_fds=pass_fds,
            start_new_session=not terminal,
            preexec_fn=terminate_with_parent,  # noqa: PLW1509 - no thread runs here
        )

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, not to its children."""
        if not self.ended:
            self.process.send_signal(number)

    def read_name(self) -> str:
        """Return the name that the pool serves, now that its pipe is readable; empty if it has ended."""
        name = os.read(self.ready_pipe, 4096).decode().strip()
        os.close(self.ready_pipe)
        self.ready_pipe = -1
        return name

    def stop(self, signals: Signals) -> None:
        """End it and wait: as long as it needs, up to a limit, or until a second signal."""
        self.send(signal.SIGTERM)
        if until(
            lambda: self.ended, pause=_POLL_SECONDS, seconds=_STOP_SECONDS, stopped=lambda: signals.hurry
        ):
            return
        if self._terminal:  # its children die with it
            self.process.kill()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def module_command(module: str) -> list[str]:
    """Return the command that runs a module of ours, without the current folder on the path.

    An app's `queue.py` must not take the place of the standard library's: its folder comes onto the path when
    the app is loaded.
    """
    if sys.version_info >= (3, 11):
        return [sys.executable, "-P", "-m", module]
    return [sys.executable, "-c", _RUN_MODULE, module]


def reap_adopted(own: Collection[int]) -> None:
    """Reap processes that have ended and that nobody else will: as PID 1 of a container we adopt orphans.

    `own`: the ids of processes that somebody polls, and that are left to him.
    """
    if not hasattr(os, "waitid"):  # macOS, where we are never PID 1
        return
    with suppress(ChildProcessError):  # there are no children
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if found.si_pid in own:
                return
            os.waitpid(found.si_pid, 0)


def start_pool(options: ServeOptions, environment: dict[str, str]) -> Part:
    """Start the pool of workers; its `ready_pipe` tells when one has loaded the app."""
    read, write = os.pipe()
    command = [*module_command("wsgi_timeout.serving.cli"), "worker", options.target]
    command += ["--name", options.name] if options.name else []
    command += ["--processes", str(options.processes), "--threads", str(options.threads)]
    command += ["--function-processes", str(options.function_processes), "--spare", str(options.spare)]
    command += ["--ready-fd", str(write), *(["--reload"] if options.reload else [])]
    command += ["--python", options.python] if options.python else []
    command += ["--gunicorn-config", options.gunicorn_config] if options.gunicorn_config else []
    # With one worker process a debugger, or `input()`, in a handler can read the terminal.
    terminal = options.processes == 1 and _is_terminal(sys.stdin) and _is_terminal(sys.stdout)
    if _is_terminal(sys.stdout):  # gunicorn logs each call
        environment = {LOG_LEVEL_VARIABLE: "WARNING", **environment}
    part = Part("the worker pool", command, environment, (write,), terminal=terminal)
    os.close(write)
    part.ready_pipe = read
    return part


def start_gunicorn(options: ServeOptions, environment: dict[str, str], sock: socket.socket) -> Part:
    """Start gunicorn, with our configuration alone, on a socket that we keep; it serves after `begin`."""
    read, write = os.pipe()
    bind = f"fd://{sock.fileno()}"
    command = [*module_command("wsgi_timeout.serving.web_start"), str(read)]
    command += ["-c", "python:wsgi_timeout.gunicorn_conf", "-b", bind]
    command += ["--log-level", "warning"]
    command += ["--threads", str(options.web_threads)] if options.web_threads else []
    command += ["--reload"] if options.reload and (options.only or options.except_) else []
    if _is_terminal(sys.stdout):
        command += ["--logger-class", "wsgi_timeout.serving.terminal_log.TerminalLogger"]
    else:  # as the workers: both halves log a line a call
        environment = {LOG_LEVEL_VARIABLE: "INFO", **environment}
    # It could name a worker class that does not drain, or --daemon, which would leave gunicorn behind.
    own = {name: value for name, value in environment.items() if name != "GUNICORN_CMD_ARGS"}
    part = Part("the web server", command, own, (sock.fileno(), read))
    os.close(read)
    part.begin_pipe = write
    return part


def begin_serving(web: Part, options: ServeOptions, name: str) -> None:
    """Have gunicorn serve the app under the name that its workers serve."""
    routes = f"only={options.only!r}, except_={options.except_!r}"
    app = f"wsgi_timeout:gateway({options.target!r}, name={name!r}, {routes})"
    with suppress(BrokenPipeError):  # it has ended, which is noticed in a moment
        os.write(web.begin_pipe, app.encode())
    os.close(web.begin_pipe)


def _is_terminal(stream: Any) -> bool:
    try:
        return stream is not None and bool(stream.isatty())
    except (OSError, ValueError):  # it was closed
        return False
