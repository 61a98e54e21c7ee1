"""A Flask app for tests: each handler that is told a `tag` writes a line to a file outside Redis."""

import hashlib
import os
import subprocess
import time
from array import array
from pathlib import Path

from flask import Flask, Response, make_response, request, stream_with_context

import wsgi_timeout

app = Flask(__name__)

#: Where this process loaded the app: written once per import.
LOADED_IN = os.getpid()


def note(suffix=""):
    tag = request.args.get("tag")
    if tag:
        with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
            runs.write(f"{tag}{suffix} {os.getpid()} {request.method} {request.path}\n")


def hold_up():
    """Wait as the query says: for `seconds`, and until the `file` exists."""
    time.sleep(request.args.get("seconds", 0.0, type=float))
    while "file" in request.args and not Path(request.args["file"]).exists():
        time.sleep(0.01)


@app.route("/fast", methods=["GET", "POST", "PUT"])
def fast():
    note()
    return f"fast {request.args.get('tag', '')}\n"


@app.route("/slow", methods=["GET", "POST", "PUT", "DELETE"])
def slow():
    note()
    time.sleep(request.args.get("seconds", 1.0, type=float))
    more = "x" * request.args.get("more", 0, type=int)
    return f"slow {request.method} {request.args.get('tag', '')} {len(request.get_data())}\n{more}"


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


@app.get("/orphan")
def orphan():
    """Leave a process behind whose parent ends at once; answer with its id."""
    return subprocess.run(["sh", "-c", "sleep 0.1 & echo $!"], stdout=subprocess.PIPE, check=True).stdout


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


@app.get("/numbers")
def numbers():
    """Stream `size` bytes of `array("Q", range(...))`, so that a lost or doubled piece shows."""
    note()
    hold_up()
    size = request.args.get("size", 1_000_000, type=int)

    def body():
        for start in range(0, size, 100_000):
            piece = array("Q", range(start // 8, start // 8 + 12_500))
            yield piece.tobytes()[: size - start]

    return Response(body(), mimetype="application/octet-stream")


@app.route("/hash", methods=["POST", "PUT"])
def digest():
    """Read the body as it comes, waiting after its first piece; noted `-whole` when its end was reached."""
    note()
    length, sha = 0, hashlib.sha256()
    while piece := request.stream.read(50_000):
        length += len(piece)
        sha.update(piece)
        if length == len(piece):
            hold_up()
    note("-whole")
    return {"length": length, "sha256": sha.hexdigest()}


@app.get("/trickle")
def trickle():
    """Yield a line, and another one after a wait."""
    note()

    @stream_with_context
    def body():
        yield "one\n"
        hold_up()
        yield "two\n"

    return Response(body(), mimetype="text/plain")


@app.post("/mirror")
def mirror():
    """Answer with the body, piece by piece, as it comes."""
    note()
    stream = request.stream
    return Response(iter(lambda: stream.read(50_000), b""), mimetype="application/octet-stream")


@app.get("/guarded")
def guarded():
    """Report progress and wait; noted `-finally` when it ends, however it ends."""
    note()
    wsgi_timeout.progress(1, 3, "one of three")
    try:
        hold_up()
    finally:
        note("-finally")
    return "guarded\n"


@app.get("/file")
def file():
    hold_up()
    headers = {"Accept-Ranges": "bytes"}
    if "cache" in request.args:
        headers["Cache-Control"] = request.args["cache"]
    return "file\n", headers


@app.get("/empty")
def empty():
    hold_up()
    return "", request.args.get("status", 204, type=int)


@app.get("/breaks")
def breaks():
    """Yield `pieces`, then raise, `length` being announced if it is given."""
    hold_up()
    pieces = request.args.get("pieces", 0, type=int)

    def body():
        for number in range(pieces):
            yield b"piece %d\n" % number
        raise ValueError("in mid-body, as intended")

    headers = {"Content-Length": request.args["length"]} if "length" in request.args else {}
    return Response(body(), headers=headers, mimetype="text/plain")


@app.get("/raises")
def raises():
    note()
    hold_up()
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
