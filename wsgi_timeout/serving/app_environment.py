"""Options of the command line that set up what an app finds: interpreter, folder, environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from wsgi_timeout.settings import PYTHON_VARIABLE


def _import_from(_context: click.Context, _parameter: click.Parameter, folder: str | None) -> None:
    """`--app-dir`: import from a folder, here and in every process that is started from here."""
    if folder:
        path = str(Path(folder).resolve())
        sys.path.insert(0, path)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))


def _read_env_file(_context: click.Context, _parameter: click.Parameter, file: str | None) -> None:
    """`--env-file`: set what the environment does not have; raises `click.BadParameter`."""
    for line in Path(file).read_text("utf-8").splitlines() if file else ():
        name, equals, text = line.strip().removeprefix("export ").partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals:
            raise click.BadParameter(f"{file}: {line!r} is not NAME=VALUE")
        text = text.strip()
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in {"'", '"'}
        os.environ.setdefault(name.strip(), text[1:-1] if quoted else text)


def app_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command; --python and --gunicorn-config are parameters of it."""
    for option in reversed(
        [
            click.option(
                "--python",
                envvar=PYTHON_VARIABLE,
                metavar="PATH",
                help="Run the app under this interpreter: CPython 2.7, or 3.6 and newer.",
            ),
            click.option(
                "--gunicorn-config",
                metavar="FILE",
                help="Set workers up by a gunicorn configuration: raw_env, chdir, pythonpath, umask, and its "
                "hooks post_fork, post_worker_init, worker_exit, child_exit.",
            ),
            click.option(
                "--app-dir",
                type=click.Path(exists=True, file_okay=False),
                callback=_import_from,
                expose_value=False,
                help="The folder that the app is imported from, as src.  [default: the current one]",
            ),
            click.option(
                "--env-file",
                type=click.Path(exists=True, dir_okay=False),
                callback=_read_env_file,
                expose_value=False,
                is_eager=True,
                help="Lines of NAME=VALUE for the environment, where it does not have them.",
            ),
        ]
    ):
        command = option(command)
    return command
