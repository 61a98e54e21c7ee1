"""A Flask app whose handlers meet in one process, and tell what each of them was given."""

import hashlib
import os
import threading
import time
from pathlib import Path

from flask import Flask, Response, g, request

app = Flask(__name__)

#: So many handlers must be in one process at once before one of them goes on.
TOGETHER = 8
MEETING = threading.Barrier(TOGETHER, timeout=20)


def note(what):
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        runs.write(f"{what} {os.getpid()}\n")


@app.post("/meet/<who>")
def meet(who):
    """Leave marks, meet the others before, within and after the body, and tell what is there then."""
    environ = request.environ
    found = [environ.get("test.mark"), g.get("mark")]
    environ["test.mark"] = g.mark = who
    body = environ["wsgi.input"]
    MEETING.wait()
    sha = hashlib.sha256(body.readline())
    MEETING.wait()
    while piece := body.read(50_000):
        sha.update(piece)
    MEETING.wait()
    return {
        "found": found,
        "left": [environ["test.mark"], g.mark, request.view_args["who"]],
        "told": [environ["PATH_INFO"], environ["QUERY_STRING"], environ["HTTP_X_WHO"]],
        "sha256": sha.hexdigest(),
        "multithread": environ["wsgi.multithread"],
        "call": environ["wsgi_timeout.call"].id,
        "process": os.getpid(),
        "thread": threading.get_ident(),
    }


@app.get("/alone")
def alone():
    return {"multithread": request.environ["wsgi.multithread"]}


@app.get("/hold/<who>")
def hold(who):
    """Send a line, and another one when `file` exists."""
    note(f"{who}-begins")
    file = Path(request.args["file"])

    def body():
        yield f"{who} begins\n"
        while not file.exists():
            time.sleep(0.01)
        yield f"{who} ends\n"

    response = Response(body(), mimetype="text/plain")
    response.call_on_close(lambda: note(f"{who}-closed"))
    return response


@app.post("/crowd/<who>")
def crowd(who):
    """Have new threads refused, by the memory of their stacks, until `file` exists; without one for good."""
    note(who)
    before = threading.stack_size(1 << 60)
    if "file" in request.args:
        while not Path(request.args["file"]).exists():
            time.sleep(0.01)
        threading.stack_size(before)
    return f"{who}\n"


@app.get("/fail/<who>")
def fail(who):
    """Write to `wsgi.errors` beside the others, then raise before the first byte, after it, or not."""
    how = request.args["how"]
    MEETING.wait()
    for number in range(100):
        request.environ["wsgi.errors"].write(f"<{who}:{number}:{who}>\n")
    if how == "before":
        MEETING.wait()
        raise ValueError(f"{who} fails")

    def body():
        yield f"{who} begins\n"
        MEETING.wait()
        if how == "after":
            raise ValueError(f"{who} fails")
        yield f"{who} ends\n"

    return Response(body(), mimetype="text/plain")
