"""A Flask app for the waiting page: what people do with a browser, each handler held up by a file."""

import os
import time
from pathlib import Path

from flask import Flask, Response, request

import wsgi_timeout

app = Flask(__name__)


@app.before_request
def noted():
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        cookies = ",".join(name for name in request.cookies if "wsgi_timeout" in name)
        runs.write(f"{request.path.strip('/')} {os.getpid()} {request.method} {cookies or '-'}\n")


def hold_up():
    """Report what the query says, and wait until the gate is there."""
    gate = request.args.get("gate")
    if "done" in request.args:
        total = request.args.get("total", type=int)
        wsgi_timeout.progress(request.args.get("done", type=int), total, request.args.get("message", ""))
    while gate and not Path(gate).exists():
        time.sleep(0.01)


@app.get("/")
def index():
    return '<title>index</title><a id=report href="/report">report</a>'


@app.get("/report")
def report():
    hold_up()
    return "<!doctype html><title>report</title><h1>The report</h1><script>query = location.search</script>"


@app.route("/form", methods=["GET", "POST"])
def form():
    if request.method == "POST":
        hold_up()
        sent = request.form.get("n") or request.files["document"].read().decode()
        return f"<title>answer</title><p id=answer>answer {sent}</p>"
    return """<!doctype html><title>form</title>
    <form method=post><input name=n id=n value=1><button id=send>send</button></form>
    <form method=post enctype=multipart/form-data><input type=file name=document id=document>
    <button id=upload>upload</button></form>"""


@app.get("/download")
def download():
    hold_up()
    headers = {"Content-Disposition": 'attachment; filename="numbers.bin"'}
    return Response(bytes(range(256)) * 400, headers=headers, mimetype="application/octet-stream")


@app.get("/nothing")
def nothing():
    hold_up()
    return "", 204


@app.get("/raises")
def raises():
    hold_up()
    raise ValueError("as intended")


@app.route("/dies", methods=["GET", "POST"])
def dies():
    hold_up()
    os.kill(os.getpid(), 9)
    return "never"


@app.get("/frame")
def frame():
    return f'<title>frame</title><iframe id=inner src="/report?{request.query_string.decode()}"></iframe>'
