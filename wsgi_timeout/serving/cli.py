"""The command line: `wsgi-timeout serve`, `wsgi-timeout worker`, and those that look at a deployment."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from wsgi_timeout import log_format, secret
from wsgi_timeout import target as targets
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.needs import need
from wsgi_timeout.serving.app_environment import app_options
from wsgi_timeout.serving.parts import ServeOptions
from wsgi_timeout.serving.serve import serve
from wsgi_timeout.settings import Settings

_STDERR = 2
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


#: Commands whose modules are imported when they are asked for: `serve` need not wait for Redis' client.
_LAZY = {
    **dict.fromkeys(("calls", "show", "workers"), "wsgi_timeout.serving.look_commands"),
    **dict.fromkeys(("cancel", "drain", "pause", "resume", "retry"), "wsgi_timeout.serving.act_commands"),
    **dict.fromkeys(("doctor", "health"), "wsgi_timeout.serving.check_commands"),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_LAZY])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _LAZY:
            return super().get_command(ctx, cmd_name)
        found: click.Command = getattr(import_module(_LAZY[cmd_name]), f"{cmd_name}_command")
        return found


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, asked: _say_version(context) if asked else None,
    help="Show the version and exit.",
)
def main() -> None:
    """Let requests take minutes behind proxies that cut them after seconds."""


def _say_version(context: click.Context) -> None:
    from wsgi_timeout import identity  # noqa: PLC0415

    click.echo(f"wsgi-timeout, version {identity.version()}")
    context.exit()


def _worker_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        [
            click.option("--name", help="Name of the queue, wt:NAME.  [default: the target's top module]"),
            click.option(
                "--processes", type=click.IntRange(1), default=2, show_default=True, help="Worker processes."
            ),
            click.option(
                "--function-processes",
                type=click.IntRange(1),
                default=2,
                show_default=True,
                help="Processes for a stub's functions, beside those for web calls.",
            ),
            click.option(
                "--threads",
                type=click.IntRange(1),
                default=1,
                show_default=True,
                help="Calls that one worker process runs at a time.",
            ),
            click.option(
                "--spare",
                type=click.IntRange(0),
                default=0,
                show_default=True,
                help="Loaded processes that stand by, to replace others at once.",
            ),
            click.option("--reload", is_flag=True, help="Load the app anew when its files change."),
        ]
    ):
        command = option(command)
    return app_options(command)


@main.command("serve")
@click.argument("target")
@click.option(
    "--bind",
    "-b",
    default="127.0.0.1:8000",
    show_default=True,
    help="HOST:PORT, port 0 takes a free one; or unix:PATH.",
)
@_worker_options
@click.option(
    "--web-threads", type=click.IntRange(2), help="Threads of the web process: nearly as many may wait."
)
@click.option(
    "--wait", "wait_seconds", type=float, help="Seconds that a request blocks before a 303.  [default: 150]"
)
@click.option("--timeout", type=float, help="Seconds that a handler may run.  [default: 3600]")
@click.option("--no-wait", is_flag=True, help="Answer 202 and a result URL at once.")
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="Run only these as calls: '/reports/*', 'POST /ocr'."
)
@click.option("--except", "except_", multiple=True, metavar="PATTERN", help="Leave these in the web process.")
@click.option(
    "--data-dir", type=click.Path(file_okay=False), help="Where the embedded server keeps its data."
)
def serve_command(
    target: str, *, wait_seconds: float | None, timeout: float | None, no_wait: bool, **options: Any
) -> None:
    """Serve TARGET (module:app, module:factory(), file.py:app, manage.py or x.ini) with all it needs.

    Without REDIS_URL an embedded server is started. To try: wsgi-timeout serve legacy:app
    """
    settings = {
        "wait_seconds": wait_seconds,
        "timeout": timeout,
        "wait_for_response": False if no_wait else None,
    }

    def both() -> int:
        need("gunicorn", "serve", "web,worker")
        need("rq", "serve", "web,worker")
        return serve(ServeOptions(target=target, settings=settings, **options), _say)

    _run(both)


@main.command("worker")
@click.argument("target")
@_worker_options
@click.option(
    "--max-requests", type=click.IntRange(0), default=0, help="Replace a process after so many calls."
)
@click.option(
    "--max-memory",
    type=click.IntRange(0),
    default=0,
    metavar="MIB",
    help="Replace an idle process that is larger.",
)
@click.option(
    "--graceful-timeout",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds that running calls may finish in after SIGTERM.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Answer Prometheus on this port.  [default: nowhere]",
)
@click.option("--ready-fd", type=int, default=-1, hidden=True)
def worker_command(
    target: str, *, name: str | None, max_memory: int, ready_fd: int, gunicorn_config: str, **options: Any
) -> None:
    """Run worker processes for TARGET, against REDIS_URL."""
    # The web half never imports the worker half; this command is the worker half's.
    from wsgi_timeout.store.connection import redis_url  # noqa: PLC0415
    from wsgi_timeout_jobs.pool.options import PoolOptions  # noqa: PLC0415
    from wsgi_timeout_jobs.pool.pool import Pool  # noqa: PLC0415
    from wsgi_timeout_jobs.process.gunicorn_file import set_up  # noqa: PLC0415

    def work() -> int:
        need("rq", "a worker", "worker")
        gunicorn = set_up(gunicorn_config, options["python"], _say)
        pool_options = PoolOptions(
            max_memory=max_memory * 2**20, ready_fd=ready_fd, gunicorn=gunicorn, **options
        )
        queue = targets.check_name(name or targets.name_of(target))
        if ready_fd < 0:  # else `serve` has a banner of its own
            _say_start(target, queue, options["processes"])
        url = redis_url()
        return Pool(target, name, url, _settings_for(url), pool_options).run()

    _run(work)


def _say_start(target: str, queue: str, processes: int) -> None:
    _say(f"workers for {target}: queue wt:{queue}, unless the target names itself")
    if processes > 1:
        _say("the processes share no memory: --processes 1 --threads 8 for an app that keeps sessions there")


def _settings_for(url: str) -> Settings:
    """Return the settings for a server that can keep them; raises `ConfigurationError`."""
    from wsgi_timeout.store import durability  # noqa: PLC0415
    from wsgi_timeout.store.connection import connect  # noqa: PLC0415
    from wsgi_timeout.store.redis_url import check_server  # noqa: PLC0415

    check_server(connect(url, connections=1), url)
    settings = Settings.load()
    if settings.durable:
        durability.log_cost(url)
    return settings


def _run(command: Callable[[], int]) -> None:
    try:
        _open_standard_streams()
        secret.check_length()
        _start_logging()
        code = command()
    except ConfigurationError as error:
        click.echo(f"wsgi-timeout: {error}", err=True)
        code = 2
    sys.exit(code)


def _open_standard_streams() -> None:
    """Open /dev/null for closed ones of stdin, stdout and stderr: a socket would get their number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STDERR, "w", closefd=False)


def _start_logging() -> None:
    # Not the root logger: the app's basicConfig() has no effect once that has a handler.
    ours = logging.getLogger("wsgi_timeout")
    ours.setLevel(log_format.level("INFO"))
    ours.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        log_format.JsonFormatter()
        if Settings.load().log_format == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    ours.addHandler(handler)


def _say(line: str) -> None:
    # The terminal may have been closed, or what reads the pipe may have ended.
    with suppress(OSError):
        click.echo(f"wsgi-timeout: {line}", err=True)


if __name__ == "__main__":
    main()
