"""A Flask app that opts in with `RequestTimeouts`, between middleware inside and middleware outside."""

import os
import signal
import time
from pathlib import Path
from wsgiref.validate import validator

from flask import Flask, current_app, request
from werkzeug.middleware.proxy_fix import ProxyFix

from wsgi_timeout import RequestTimeouts


class Stamp:
    """Middleware that leaves its process id in a request header and in a response header."""

    def __init__(self, app, name):
        self.app = app
        self.name = name

    def __call__(self, environ, start_response):
        key = "HTTP_" + self.name.upper().replace("-", "_")
        environ[key] = f"{environ.get(key, '')} {os.getpid()}".strip()

        def start(status, headers, exc_info=None):
            return start_response(status, [*headers, (self.name, str(os.getpid()))], exc_info)

        return self.app(environ, start)


def create_app(config=None, **options):
    """Return the app; `options` are those of `RequestTimeouts`."""
    return extend(RequestTimeouts(**options), config)


def extend(extension, config=None, name="app"):
    app = Flask(__name__)
    app.config.update(config or {}, WHO=name)
    for path in ("/", "/web/<path:rest>", "/<path:rest>"):
        app.add_url_rule(path, view_func=view, methods=["GET", "POST", "PUT"], endpoint=path)
    app.wsgi_app = Stamp(app.wsgi_app, "X-Inside")
    extension.init_app(app)
    app.wsgi_app = Stamp(app.wsgi_app, "X-Outside")
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1)
    app.wsgi_app = validator(app.wsgi_app)
    return app


def view(rest=""):
    """Note the run under `tag`, do as the query says, and tell what was seen and where."""
    tag = request.args.get("tag")
    if tag:
        with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
            runs.write(f"{tag} {os.getpid()} {request.method} {request.path}\n")
    if "die" in request.args:
        os.kill(os.getpid(), signal.SIGKILL)
    while "file" in request.args and not Path(request.args["file"]).exists():
        time.sleep(0.01)
    return {
        "who": current_app.config["WHO"],
        "pid": os.getpid(),
        "url": request.url,
        "remote": request.remote_addr,
        "inside": request.headers.get("X-Inside"),
        "outside": request.headers.get("X-Outside"),
    }


timeouts = RequestTimeouts()
app = extend(timeouts)
#: A second app with the same extension, as an application factory may make it.
admin = extend(timeouts, name="admin")
