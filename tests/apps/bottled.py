"""A Bottle app."""

import time
from pathlib import Path

import bottle
from bottle import abort, redirect, request, response

app = bottle.Bottle()


@app.get("/where/<rest:path>")
def where(rest):
    response.set_cookie("visited", rest)
    return {
        "rest": rest,
        "url": request.url,
        "script": request.script_name,
        "fullpath": request.fullpath,
        "made": app.get_url("made", name="x y"),
    }


@app.get("/made/<name>", name="made")
def made(name):
    return f"made {name}\n"


@app.get("/wait")
def wait():
    while not Path(request.query["file"]).exists():
        time.sleep(0.01)
    return "bottle is through\n"


@app.post("/upload")
def upload():
    part = request.files.get("part")
    return {"name": part.raw_filename, "length": len(part.file.read()), "field": request.forms["field"]}


@app.get("/away")
def away():
    redirect("/elsewhere")


@app.get("/lines")
def lines():
    response.content_type = "text/plain"
    yield "one\n"
    yield "two\n"


@app.get("/refused")
def refused():
    abort(403, "not you")


@app.get("/raises")
def raises():
    raise ValueError("as intended")
