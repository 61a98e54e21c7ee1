"""Starts gunicorn for `serve`: imports what it takes while workers load the app, then learns what to serve.

python -m wsgi_timeout.serving.web_start FD OPTIONS...     the pipe FD tells gunicorn's last argument
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import gunicorn
from gunicorn.app.wsgiapp import WSGIApplication

#: What a web process imports for its first request. Nothing of the app: a worker imports that after its fork.
_MODULES = (
    "gunicorn.arbiter",
    "wsgi_timeout.gunicorn_conf",
    "wsgi_timeout.gunicorn_worker",
    "wsgi_timeout.integrations.gateway",
    "wsgi_timeout.front.front",
)


def main() -> None:
    """Run gunicorn, once it is told what to serve; end if it is told nothing."""
    pipe = int(sys.argv[1])
    for module in _MODULES:
        # What is wrong with the configuration, gunicorn itself says.
        with suppress(Exception):
            import_module(module)
    with open(pipe) as told:
        app = told.read()
    if app:
        # As `python -m gunicorn` has it. Not imported: before gunicorn 22 it would run at once.
        sys.argv = [str(Path(gunicorn.__file__).with_name("__main__.py")), *sys.argv[2:], app]
        WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn").run()


if __name__ == "__main__":
    main()
