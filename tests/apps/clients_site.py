"""What the tests of the clients ask: slow answers, streams, a page for a browser, and the client itself."""

import json
import time
from pathlib import Path

from flask import Response, request
from streaming import app, note

import wsgi_timeout

CLIENT = Path(__file__).parents[2] / "clients" / "wsgi_timeout_client.mjs"


@app.route("/slow", methods=["GET", "POST"])
def slow():
    """Answer when the file of the query is there, having reported progress."""
    try:
        note(request.args.get("tag", "slow"))
        wsgi_timeout.progress(1, 2, "half")
        while not Path(request.args["file"]).exists():
            time.sleep(0.01)
    except BaseException:
        note(request.args.get("tag", "slow") + "-cancelled")
        raise
    return {"got": request.get_data(as_text=True), "method": request.method}


@app.get("/big")
def big():
    """Stream numbered lines."""
    note(request.args.get("tag", "big"))
    time.sleep(request.args.get("seconds", 0.0, type=float))
    lines = (json.dumps({"n": n, "pad": "x" * 990}).encode() + b"\n" for n in range(1000))
    return Response(lines, mimetype="text/plain")


@app.get("/page")
def page():
    return "<!doctype html><title>clients</title>"


@app.get("/client.mjs")
def client():
    return Response(CLIENT.read_bytes(), mimetype="text/javascript")
