"""Options of the command line that set up what an app finds: interpreter, folder, environment."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import click

from wsgi_timeout.settings import PYTHON_VARIABLE

#: One entry of an --env-file, as python-dotenv has it: quoted values may have several lines, a comment
#: follows a blank. Or an empty line, or a comment alone.
_LINE = re.compile(
    r"""[ \t]*(?:(?:export[ \t]+)?([^\s=#'"]+)[ \t]*=[ \t]*(?:'([^']*)'|"((?:[^"\\]|\\.)*)"|([^\n]*?)))?"""
    r"""[ \t\r]*(?:(?<!\S)#[^\n]*)?(?:\n|\Z)""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\([\\'\"nrt])")


def _import_from(_context: click.Context, _parameter: click.Parameter, folder: str | None) -> None:
    """`--app-dir`: import from a folder, here and in every process that is started from here."""
    if folder:
        path = str(Path(folder).resolve())
        sys.path.insert(0, path)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))


def _read_env_file(_context: click.Context, _parameter: click.Parameter, file: str | None) -> None:
    """`--env-file`: set what the environment does not have; raises `click.BadParameter`."""
    text, at = (Path(file).read_text("utf-8-sig") if file else ""), 0
    while at < len(text):
        found = _LINE.match(text, at)
        if found is None:
            line = text[at:].partition("\n")[0]
            raise click.BadParameter(f"{file}: {line!r} is not NAME=VALUE")
        name, as_it_is, escaped, plain = found.groups()
        if name:
            quoted = as_it_is if escaped is None else _ESCAPE.sub(_unescaped, escaped)
            os.environ.setdefault(name, plain if quoted is None else quoted)
        at = found.end()


def _unescaped(found: re.Match[str]) -> str:
    return {"n": "\n", "r": "\r", "t": "\t"}.get(found[1], found[1])


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
