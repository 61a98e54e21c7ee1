"""Writes the pages of docs/reference that are made of the source, and the recipes on other pages: `make reference`. A test compares them."""

import dataclasses
import inspect
import pkgutil
import re
import runpy
import sys
import textwrap
from pathlib import Path

import click

from wsgi_timeout import errors
from wsgi_timeout.metrics import FAMILIES
from wsgi_timeout.serving.cli import main as cli
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys

FOLDER = Path(__file__).parent / "reference"
DRAWINGS = runpy.run_path(str(Path(__file__).with_name("_drawings.py")))["DRAWINGS"]


def settings():
    rows = [
        f"| `{field.name}` | {field.metadata['unit']} | {field.default} | {field.metadata['meaning']} |"
        for field in dataclasses.fields(Settings)
    ]
    return f"""# Settings

Each can be given in three ways:

- as the environment variable `WSGI_TIMEOUT_<NAME>`, as in `WSGI_TIMEOUT_WAIT_SECONDS=25`;
- as a keyword argument of `gateway`, `wsgi_blueprint` and `RequestTimeouts`;
- for the last two as `WSGI_TIMEOUT_<NAME>` in Flask's config.

A keyword wins over the config, the config over the environment. Options of `serve` stand for four of them: `--wait` is `wait_seconds`, `--timeout` is
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
| `WSGI_TIMEOUT_SECRET` | signs the arguments and results of functions, and seals requests; 32 characters or more, the same in every process |
| `WSGI_TIMEOUT_NAME` | the name of the queue, as `--name` |
| `WSGI_TIMEOUT_BIND` | where gunicorn listens with the shipped configuration |
| `WSGI_TIMEOUT_LOG_LEVEL` | how much both halves say; `INFO`, under gunicorn its `--log-level` |
| `WSGI_TIMEOUT_TARGET` | the target of a stock `rq worker` |
| `WSGI_TIMEOUT_PYTHON` | the interpreter that runs the app, as `--python` |
| `PORT`, `WEB_CONCURRENCY` | set by platforms: the port of gunicorn with the shipped configuration, where `WSGI_TIMEOUT_BIND` is not set; its processes, 1 |
"""


def commands():
    parts = ["# The command line", ""]
    # As a child of the group's context: it is there that a command's help option gets its names.
    whole = click.Context(cli, info_name="wsgi-timeout", **cli.context_settings)
    for name in cli.list_commands(whole):
        command = cli.get_command(whole, name)
        context = click.Context(command, info_name=name, parent=whole)
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
        # The usage line has the arguments, which have no help of their own.
        if record and record[1]:
            names, meaning = (text.replace("|", "\\|") for text in record)
            yield f"| `{names}` | {meaning} |"


def redis_keys():
    return f"""# Redis keys

```text
{inspect.cleandoc(keys.__doc__)}
```
"""


def metric_table():
    rows = []
    for family in FAMILIES.values():
        kind = "gauge, from Redis" if family.kind == "redis" else family.kind
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{family.name}` | {labels} | {kind} | {family.meaning} |")
    return f"""# Metrics

For Prometheus, with the extra `metrics` (in the clone `pip install '.[metrics]'`). Off by default: without the settings below nothing
is imported and nothing is counted.

| where | how |
|---|---|
| web processes | `WSGI_TIMEOUT_METRICS_PATH=/__wsgi_timeout/metrics`: any web process answers for all of its gunicorn (our worker classes, with our configuration) |
| a pool | `wsgi-timeout worker TARGET --metrics-port 9110`: a process of its own answers for the pool, also while that is busy |

Keep the path from the public: the recipes in `deploy/` answer 404 there, and Prometheus asks each gunicorn at its own address.
Scrape both halves: what web processes see stands with them, what workers see at the pool's port.

| metric | labels | kind | meaning |
|---|---|---|---|
{chr(10).join(rows)}

- `name` is the queue's, without `wt:`. `route` is a pattern of `routes` or `only` (the first 100), else `*`, a web function's
  `/label`, or a function's name: never a path. A process tells 100 of them apart, the others are `*` too. It is `unknown` for
  a call that was ended from outside its handler.
- `outcome`: done, raised, broken, lost, timeout, cancelled, unread. `code`: the status. `reason` of a refusal: the name of the
  error. `kind` of an attempt: first, again. `result` of a recovered call: requeued, lost, dropped.
- Gauges from Redis are the same in every process that is scraped: take `max by (name)`.
- **Added latency** is what our part costs a call that a worker takes at once: `wsgi_timeout_accept_seconds` (the web process, until
  Redis has it), `wsgi_timeout_queue_seconds` (until a worker has it) and `wsgi_timeout_record_seconds` (until its outcome is stored).
  The way back to the web process, about a millisecond, is in none of them.
- A scrape reads a file for each live process, and one for all that have ended. A scrape waits for Redis for 2 s at most;
  without it `wsgi_timeout_redis_up` is 0 and the other gauges from Redis are left out.
- Web processes and pools have folders of their own (`PROMETHEUS_MULTIPROC_DIR`, in `/dev/shm` where there is one). What an app
  counts with prometheus-client's default registry is answered too. A web process keeps a folder that is set already; a pool
  never does.
- `environ["wsgi_timeout.route"]` tells an app its route.

`deploy/grafana-dashboard.json` shows them, `deploy/prometheus-rules.yml` has alerts. An autoscaler wants
`max(wsgi_timeout_queued_calls) + max(wsgi_timeout_running_calls)`.
"""


#: The page of the public API: a heading, and the names below it by the modules that have them.
API = {
    "The ways in": (
        *("integrations.gateway.gateway", "integrations.extension.RequestTimeouts"),
        *("integrations.blueprint.wsgi_blueprint", "integrations.stub.Stub"),
        *("integrations.endpoints.wsgi_app", "integrations.endpoints.asgi_app"),
        "integrations.endpoints.web_endpoint",
    ),
    "Functions": ("functions.function.Function", "functions.call.FunctionCall", "functions.function.gather"),
    "In a handler": ("current.progress", "current.track"),
    "Settings": ("settings.Settings",),
}
#: These are made by others: what would be given to them is nobody's affair.
MADE_BY_OTHERS = {"Function", "Settings"}


def api():
    """Return the page of the public API, each signature and docstring as it is in the source."""
    parts = [
        "# Public API",
        "Import what stands here from `wsgi_timeout`, the errors from `wsgi_timeout.errors`. `help()` says the same.",
    ]
    for title, paths in API.items():
        parts.append(f"## {title}")
        for path in paths:
            found = pkgutil.resolve_name(f"wsgi_timeout.{path}")
            parts += entry(found.__name__, found)
            for name in vars(found) if inspect.isclass(found) else ():
                if name[0] != "_" and callable(method := getattr(found, name)):
                    parts += entry(f"{found.__name__}.{name}", method)
    return "\n\n".join([*parts, "The fields: [settings](settings.md).", "## Errors", *api_errors()]) + "\n"


def entry(name, found):
    """Yield the heading, the signature and the docstring of a class or function; a class with those of `__init__`."""
    yield f"### {name}"
    if name not in MADE_BY_OTHERS:
        yield f"```text\n{signature(name, found)}\n```"
    # Settings' fields have a page of their own.
    yield prose((inspect.getdoc(found) or "").partition("\n\nFields:")[0])
    if inspect.isclass(found) and name not in MADE_BY_OTHERS:
        yield prose(inspect.getdoc(found.__init__).partition("\n\n")[2])


def signature(name, found):
    """Return a signature, with a line for each argument where one line is too long."""
    whole = inspect.signature(found)
    # Of a decorator the docstring says more than its type.
    silent = inspect.isclass(found) or str(whole.return_annotation).startswith(("_", "Callable["))
    end = inspect.Signature.empty if silent else whole.return_annotation
    arguments = [each for each in whole.parameters.values() if each.name not in {"self", "cls"}]
    plain = f"{name}{whole.replace(parameters=arguments, return_annotation=end)}"
    plain = re.sub(r"(: |-> )'([^']*)'", r"\1\2", plain)
    if len(plain) <= 100:
        return plain
    inside, _, after = plain.removeprefix(f"{name}(").rpartition(")")
    # A comma within brackets is one of a type: there is none that is nested deeper than twice.
    each = re.findall(r"(?:\[(?:\[[^\]]*\]|[^\[\]])*\]|[^,\[])+", inside)
    lines = "".join(f"    {argument.strip()},\n" for argument in each)
    return f"{name}(\n{lines}){after}"


def prose(text):
    """Return a docstring as Markdown: its sections of arguments and errors as lists."""
    done = []
    for part in text.split("\n\n"):
        heading, _, rest = part.partition("\n")
        if heading not in {"Args:", "Returns:", "Raises:"}:
            done.append(part)
            continue
        lines = textwrap.dedent(rest)
        if heading != "Returns:":
            lines = re.sub(r"^(\w+): ", r"- `\1`: ", lines, flags=re.MULTILINE)
        title = {"Args:": "Arguments", "Returns:": "Returns", "Raises:": "Raises"}[heading]
        done.append(
            f"*{title}*" + (f": {joined(lines)}" if heading == "Returns:" else f"\n\n{joined(lines)}")
        )
    return "\n\n".join(done)


def joined(lines):
    """Return lines of a section with those that go on joined to the one before."""
    return re.sub(r"\n +", " ", lines)


def api_errors():
    yield "`WsgiTimeoutError` is the root of all but the last. Each becomes an HTTP status where it ends a request."
    rows = ["| error | is a | status | meaning |", "|---|---|---|---|"]
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and kind.__module__ == errors.__name__:
            status = getattr(kind, "status", "").partition(" ")[0]
            bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
            rows.append(f"| `{name}` | {bases} | {status} | {' '.join(inspect.getdoc(kind).split())} |")
    yield "\n".join(rows)


PAGES = {
    "api.md": api,
    "metrics.md": metric_table,
    "settings.md": settings,
    "cli.md": commands,
    "redis-keys.md": redis_keys,
}


def with_recipes(text):
    """Return a page with what it shows of deploy/ and examples/ as those files are now."""
    block = re.compile(
        r'(^```\w+ title="((?:deploy|examples)/[^"]+)"\n)(.*?)(^```$)', re.MULTILINE | re.DOTALL
    )
    root = Path(__file__).parent.parent
    return block.sub(lambda found: found[1] + (root / found[2]).read_text(encoding="utf-8") + found[4], text)


#: Contestants on the page of the comparison that have another name in the rows of the benchmark.
CONTESTANTS = {
    "a bare Redis list and a blocking pop": "floor",
    "rq worker, which forks for each job": "rq worker",
    "gunicorn's dirty workers, without Redis": "gunicorn's dirty workers",
}


def with_figures(text):
    """Return the page of the comparison with the figures of benchmarks/results.md."""
    results = (Path(__file__).parent.parent / "benchmarks" / "results.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| requests/s at 32 clients: ours / (.+?) \| ([\d.]+) ", results, re.MULTILINE))
    return re.sub(
        r"^\| (.+?) \| ([\d.]+) \|$",
        lambda row: f"| {row[1]} | {rows.get(CONTESTANTS.get(row[1], row[1]), row[2])} |",
        text,
        flags=re.MULTILINE,
    )


def main():
    comparison = FOLDER.parent / "explanation" / "comparison.md"
    comparison.write_text(with_figures(comparison.read_text(encoding="utf-8")), encoding="utf-8")
    for name, draw in DRAWINGS.items():
        (FOLDER.parent / "images" / name).write_text(draw(), encoding="utf-8")
    for page in (FOLDER.parent / "how-to").glob("*.md"):
        page.write_text(with_recipes(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
