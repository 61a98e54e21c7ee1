"""An app whose answers depend on the query, on conditions, on a log-in, on how far a client is."""

import os
from decimal import Decimal
from pathlib import Path

from basic import hold_up, note
from flask import Flask, Response, make_response, request

import wsgi_timeout

app = Flask(__name__)
BODY = "0123456789" * 40
CACHING = ("Cache-Control", "CDN-Cache-Control")


class Number:
    """A number of a library's own."""

    def __float__(self):
        return 1.5


THINGS = {
    "Decimal(1)": Decimal(1),
    "Number()": Number(),
    "object()": object(),
    "nan": float("nan"),
    "10**400": 10**400,
    "'\\udce9'": "\udce9",
}


@app.before_request
def slow():
    if request.path == "/progress":
        thing = THINGS[request.args["what"]]
        wsgi_timeout.progress(thing, total=thing, message=thing)
    note(f"-{request.method}")
    if request.method != "OPTIONS":
        hold_up()


@app.route("/progress")
def progress():
    return "reported"


@app.route("/list", methods=["GET", "POST", "PUT"])
def items():
    headers = dict.fromkeys(CACHING, request.args["cache"]) if "cache" in request.args else {}
    return f"page {request.args.get('page')}", headers


@app.route("/copy")
def copy():
    """What a client may have a copy of, or want a part of."""
    body = BODY * request.args.get("times", 1, type=int)
    response = make_response(body)
    response.set_etag("v1")
    return response.make_conditional(request, accept_ranges=True, complete_length=len(body))


@app.route("/private")
def private():
    if request.headers.get("Authorization") == "Bearer good":
        return "welcome"
    return Response("who?", 401, {"WWW-Authenticate": "Bearer"})


@app.route("/feed")
def feed():
    last = int(request.headers.get("Last-Event-ID", 0))
    return Response(f"id: {last + 1}\ndata: x\n\n", mimetype="text/event-stream")


@app.route("/seen")
def seen():
    return {key: value for key, value in request.environ.items() if isinstance(value, str)}


@app.route("/policy")
def policy():
    return Response("page", headers={"Referrer-Policy": request.args["policy"]})


@app.route("/shared", methods=["GET", "POST", "OPTIONS"])
def shared():
    """Answer pages of other origins, as an app does that has CORS headers of its own."""
    origin = {"Access-Control-Allow-Origin": request.headers.get("Origin", "null")}
    allowed = {"Access-Control-Allow-Headers": "content-type, x-more", "Access-Control-Max-Age": "0"}
    headers = {**origin, **allowed, "Access-Control-Allow-Credentials": "true"}
    return Response(f"{request.method} {request.get_data(as_text=True)}", headers=headers)


@app.route("/away")
def away():
    """Lead a page of any origin on to another one."""
    origin = {"Access-Control-Allow-Origin": request.headers.get("Origin", "null")}
    headers = {**origin, "Access-Control-Allow-Credentials": "true", "Location": request.args["to"]}
    return Response(status=302, headers=headers)


@app.route("/dashboard")
def dashboard():
    """A page that comes again by itself."""
    return '<meta http-equiv="refresh" content="1"><p>numbers</p>'


@app.route("/events")
def events():
    last = int(request.headers.get("Last-Event-ID", 0))
    return Response(f"retry: 10\nid: {last + 1}\ndata: {last + 1}\n\n", mimetype="text/event-stream")


@app.route("/fails", methods=["GET", "POST"])
def fails():
    """Break off in the middle, or raise: the first time only."""
    tag, how = request.args["tag"], request.args["how"]
    if Path(os.environ["RUNS_FILE"]).read_text(encoding="utf-8").count(f"{tag}-") > 1:
        return BODY
    if how == "raises":
        app.config["PROPAGATE_EXCEPTIONS"] = True
        raise ZeroDivisionError
    if how == "500":
        return how, 500
    return Response(half(BODY * int(how)), headers={"Content-Length": len(BODY) * int(how)})


def half(body):
    yield body[: len(body) // 2]
    raise ConnectionError("as intended")
