"""A Flask app that uses all that Flask runs around a view, and writes down when it did."""

import os
import queue
import threading
from pathlib import Path

from flask import Flask, Response, g, request, send_file, session, stream_with_context
from flask.sessions import SecureCookieSessionInterface
from werkzeug.wsgi import wrap_file

FILES = Path(__file__).parent

app = Flask(__name__)
app.secret_key = "only for tests"


class Sessions(SecureCookieSessionInterface):
    """Sessions whose saving fails where the request says so."""

    def save_session(self, app, session, response):
        note("save_session")
        fail("save_session")
        super().save_session(app, session, response)


app.session_interface = Sessions()


def note(what):
    """Write a line for this request into the ledger, if it named itself."""
    if g.tag:
        write(g.tag, what)


def write(tag, what):
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        runs.write(f"{tag} {what}\n")


def fail(where):
    """Raise, if the request says that it is to happen here."""
    if g.failing == where:
        raise ValueError(f"as intended, {where}")


# -- what Flask runs around a view


@app.url_value_preprocessor
def preprocess(endpoint, values):
    """Keep what the request says where it is found also when there is no request any more."""
    g.tag, g.failing = request.headers.get("X-Tag"), request.args.get("raise")
    note(f"url_value_preprocessor {endpoint}")
    fail("url_value_preprocessor")


@app.before_request
def before():
    note(f"before_request {g.get('mark', 'fresh')}")
    g.mark = "marked"
    fail("before_request")
    if request.args.get("answer") == "before_request":
        return "answered before\n"
    return None


@app.after_request
def after(response):
    note(f"after_request {response.status_code} {g.mark}")
    fail("after_request")
    response.headers["X-After"] = g.mark
    return response


@app.teardown_request
def teardown(error):
    note(f"teardown_request {error!r}")
    fail("teardown_request")


@app.teardown_appcontext
def teardown_app(error):
    note(f"teardown_appcontext {error!r}")
    fail("teardown_appcontext")


@app.errorhandler(KeyError)
def key_error(error):
    note("errorhandler")
    fail("errorhandler")
    return f"no key {error}\n", 418


# -- views


@app.route("/view", methods=["GET", "POST", "PUT"])
def view():
    note("view")
    fail("view")
    if g.failing == "errorhandler":
        raise KeyError("as intended")
    return "view\n"


@app.route("/count")
def count():
    """Count in the session, and tell what this request found in `g`."""
    session["count"] = session.get("count", 0) + 1
    return {"count": session["count"], "mark": g.mark}


@app.route("/unread", methods=["POST"])
def unread():
    """Answer without a look at the body."""
    return "unread\n", request.args.get("status", 200, type=int)


@app.route("/stream")
def stream():
    """Stream what the request and the session say, with the request's context, and close."""
    session["streamed"] = True

    @stream_with_context
    def body():
        note("first chunk")
        fail("first")
        yield f"{request.args.get('word', 'none')} {g.mark}\n"
        fail("later")
        yield "x" * 100_000
        fail("last")
        note("last chunk")

    return Response(body(), mimetype="text/plain")


@app.route("/closes")
def closes():
    """Close three things, out of the request's context; the second may fail."""
    tag, failing = g.tag, g.failing

    def closed(which):
        write(tag, f"closed {which}")
        if failing == which:
            raise ValueError(f"as intended, {which}")

    response = Response("closes\n", mimetype="text/plain")
    for which in ("one", "two", "three"):
        response.call_on_close(lambda which=which: closed(which))
    return response


@app.route("/gate")
def gate():
    """Send a chunk, and wait for `file` before each of the next."""
    tag, file = g.tag, Path(request.args["file"])

    def body():
        try:
            yield "begun\n"
            while not file.exists():
                threading.Event().wait(0.01)
            yield "x" * 100_000
            yield "end\n"
            write(tag, "last chunk")
        finally:
            write(tag, "left")

    response = Response(body(), mimetype="text/plain")
    response.call_on_close(lambda: write(tag, "closed"))
    return response


@app.route("/file/<name>")
def file(name):
    """Send a file as Flask does: in ranges, and under conditions."""
    return send_file(FILES / name, mimetype="text/plain", max_age=60)


@app.route("/large")
def large():
    """Send a file of a million bytes, made at its first use."""
    path = Path(os.environ["RUNS_FILE"]).with_suffix(".large")
    if not path.exists():
        made = path.with_suffix(f".{os.getpid()}")
        made.write_bytes(bytes(range(256)) * 4_000)
        os.utime(made, (1_000_000_000, 1_000_000_000))
        made.rename(path)
    return send_file(path, mimetype="application/octet-stream", etag="large")


class Odd:
    """A file whose reading, or closing, fails."""

    def __init__(self, tag, fail_at):
        self._tag, self._fail_at, self._reads = tag, fail_at, 0

    def read(self, _size=-1):
        if self._fail_at == self._reads:
            raise ValueError("as intended, read")
        self._reads += 1
        return b"a piece\n" * 1000 if self._reads < 4 else b""

    def close(self):
        write(self._tag, "file closed")
        if self._fail_at == "close":
            raise ValueError("as intended, close")


@app.route("/wrapped/<fail_at>")
def wrapped(fail_at):
    """Send a file by the server's own wrapper."""
    fail_at = int(fail_at) if fail_at.isdigit() else fail_at
    odd = Odd(g.tag, fail_at)
    return Response(wrap_file(request.environ, odd), mimetype="text/plain", direct_passthrough=True)


@app.route("/log")
def log():
    """Log as Flask's own logger does, which writes to `wsgi.errors`."""
    app.logger.error("logged for %s", g.tag)
    return "logged\n"


# -- a thread that the app starts when it is imported

_asked = queue.SimpleQueue()


def _serve():
    while True:
        number, answer = _asked.get()
        answer.put(number * 2)


threading.Thread(target=_serve, daemon=True).start()


@app.route("/thread/<int:number>")
def thread(number):
    """Have the thread compute."""
    answer = queue.SimpleQueue()
    _asked.put((number, answer))
    return f"{answer.get(timeout=10)}\n"
