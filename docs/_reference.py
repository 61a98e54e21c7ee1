"""Writes the pages of docs/reference that are made of the source: `make reference`. A test compares them."""

import dataclasses
import inspect
import sys
from pathlib import Path

import click

from wsgi_timeout.serving.cli import main as cli
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys

FOLDER = Path(__file__).parent / "reference"


def settings():
    rows = [
        f"| `{field.name}` | {field.metadata['unit']} | {field.default} | {field.metadata['meaning']} |"
        for field in dataclasses.fields(Settings)
    ]
    return f"""# Settings

Each can be given as the environment variable `WSGI_TIMEOUT_<NAME>`, as in
`WSGI_TIMEOUT_WAIT_SECONDS=25`, as a keyword argument of `gateway`, `wsgi_blueprint` and `RequestTimeouts`,
and for the last two as `WSGI_TIMEOUT_<NAME>` in Flask's config. A keyword wins over the config, the config
over the environment. Options of `serve` stand for four of them: `--wait` is `wait_seconds`, `--timeout` is
`timeout`, `--no-wait` is `wait_for_response=false`, and `--web-threads` sets `max_waiting`. Give web
processes and workers the same environment. A process reads it once, when it starts, or at its first `spawn`.

| name | unit | default | meaning |
|---|---|---|---|
{chr(10).join(rows)}

`Settings` refuses a value of the wrong type or below its least, and says which.

More variables are no settings:

| variable | meaning |
|---|---|
| `REDIS_URL` | the Redis or Valkey of web processes and workers |
| `WSGI_TIMEOUT_SECRET` | signs the arguments and results of functions; the same in every process |
| `WSGI_TIMEOUT_NAME` | the name of the queue, as `--name` |
| `WSGI_TIMEOUT_BIND` | where gunicorn listens with the shipped configuration |
| `WSGI_TIMEOUT_LOG_LEVEL` | how much workers say; `INFO` |
| `WSGI_TIMEOUT_TARGET` | the target of a stock `rq worker` |
"""


def commands():
    parts = ["# The command line", ""]
    for name, command in sorted(cli.commands.items()):
        context = click.Context(command, info_name=f"wsgi-timeout {name}")
        parts += [f"## wsgi-timeout {name}", "", *described(command, context), ""]
    return "\n".join(parts)


def described(command, context):
    yield f"`{command.get_usage(context).removeprefix('Usage: ')}`"
    yield ""
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    yield ""
    yield "| option | meaning |"
    yield "|---|---|"
    for option in command.get_params(context):
        record = option.get_help_record(context)
        if record:
            names, meaning = (text.replace("|", "\\|") for text in record)
            yield f"| `{names}` | {meaning} |"


def redis_keys():
    return f"""# Redis keys

```
{inspect.cleandoc(keys.__doc__)}
```
"""


PAGES = {"settings.md": settings, "cli.md": commands, "redis-keys.md": redis_keys}


def main():
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
