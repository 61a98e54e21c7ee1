"""A Flask app for tests: each handler that is told a `tag` writes a line to a file outside Redis."""

import os
import time
from pathlib import Path

from flask import Flask, Response, make_response, request

app = Flask(__name__)

#: Where this process loaded the app: written once per import.
LOADED_IN = os.getpid()


def note():
    tag = request.args.get("tag")
    if tag:
        with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
            runs.write(f"{tag} {os.getpid()} {request.method} {request.path}\n")


@app.route("/fast", methods=["GET", "POST", "PUT"])
def fast():
    note()
    return f"fast {request.args.get('tag', '')}\n"


@app.route("/slow", methods=["GET", "POST", "PUT", "DELETE"])
def slow():
    note()
    time.sleep(request.args.get("seconds", 1.0, type=float))
    return f"slow {request.method} {request.args.get('tag', '')} {len(request.get_data())}\n"


@app.get("/gate")
def gate():
    """Wait until the file named in the query exists."""
    note()
    while not Path(request.args["file"]).exists():
        time.sleep(0.01)
    return f"passed {request.args.get('tag', '')}\n"


@app.get("/pid")
def pid():
    return {"pid": os.getpid(), "loaded_in": LOADED_IN}


@app.get("/headers")
def headers():
    response = make_response("headers\n", 201)
    response.status = "201 Made Up"
    response.headers.add("Set-Cookie", "a=1; Path=/")
    response.headers.add("X-Order", "first")
    response.headers.add("Set-Cookie", "b=2; Path=/")
    response.headers.add("X-Order", "second")
    return response


@app.route("/echo", methods=["GET", "POST", "PUT"])
def echo():
    note()
    data = request.get_data()
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query_string.decode("latin-1"),
        "length": len(data),
        "referer": request.headers.get("Referer"),
        "environ": {key: value for key, value in request.environ.items() if isinstance(value, str)},
    }


@app.get("/big")
def big():
    size = request.args.get("size", 1_000_000, type=int)
    note()

    def body():
        left = size
        while left:
            piece = min(left, 100_000)
            yield b"x" * piece
            left -= piece

    return Response(body(), mimetype="application/octet-stream")


@app.get("/raises")
def raises():
    note()
    raise ValueError("as intended")


@app.get("/dies")
def dies():
    """End this process as a crash does."""
    note()
    os.kill(os.getpid(), 9)
    return "never"


@app.route("/form", methods=["GET", "POST"])
def form():
    note()
    answer = ""
    if request.method == "POST":
        time.sleep(float(request.form["seconds"]))
        answer = f"<p id=answer>answer {request.form['n']}</p>"
    # No action: the browser posts it to the address that it shows.
    return f"""<!doctype html><title>form</title>{answer}
    <form method=post><input name=n id=n value=1><input name=seconds id=seconds value=1.5>
    <button id=send>send</button></form>"""
