"""Apps of frameworks and middlewares that treat a server each in their own way, side by side."""

import gzip
import hashlib
import io
import json
import os
import tempfile
from pathlib import Path

import bottle
import falcon
from flask import Flask, Response, jsonify, request, url_for
from flask_socketio import SocketIO, emit
from pyramid.config import Configurator
from pyramid.response import FileResponse
from pyramid.response import Response as PyramidResponse
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wsgi import LimitedStream, get_input_stream
from whitenoise import WhiteNoise

ROOT = Path(tempfile.gettempdir(), f"wsgi-frameworks-{os.getuid()}")
#: A file's name, and its bytes; the same in each process that makes them.
FILES = {
    "style.css": b"body {}\n" * 100,
    "style.css.gz": gzip.compress(b"body {}\n" * 100, mtime=0),
    "large.bin": bytes(range(256)) * 1200,
}
ROOT.mkdir(exist_ok=True)
for _name, _content in FILES.items():
    _made = ROOT / f".{_name}.{os.getpid()}"
    _made.write_bytes(_content)
    os.utime(_made, (1_000_000_000, 1_000_000_000))
    _made.rename(ROOT / _name)


def not_found(_environ, start_response):
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"not found\n"]


# -- Falcon


class Things:
    def on_get(self, req, resp):
        resp.media = {"params": req.params, "path": req.path, "uri": req.uri}
        resp.set_cookie("a", "b", same_site="Lax")

    def on_post(self, req, resp):
        resp.text = hashlib.sha256(req.bounded_stream.read()).hexdigest()

    def on_put(self, req, resp):
        resp.stream = req.stream
        resp.content_type = "application/octet-stream"

    def on_delete(self, _req, _resp):
        raise falcon.HTTPConflict(title="no")


class Form:
    def on_post(self, req, resp):
        resp.media = [(part.name, part.filename, len(part.stream.read())) for part in req.get_media()]


class Large:
    def on_get(self, _req, resp):
        path = ROOT / "large.bin"
        resp.set_stream(path.open("rb"), path.stat().st_size)


on_falcon = falcon.App()
on_falcon.add_route("/things", Things())
on_falcon.add_route("/form", Form())
on_falcon.add_route("/large", Large())
on_falcon.add_static_route("/static", str(ROOT))


# -- Pyramid, on WebOb


def urls(req):
    told = [req.url, req.application_url, req.script_name, req.path_info, sorted(req.params.items())]
    return PyramidResponse(json.dumps(told), content_type="application/json")


def pieces(_req):
    return PyramidResponse(
        app_iter=(b"piece %d\n" % number for number in range(5)), content_type="text/plain"
    )


def conditional(_req):
    response = PyramidResponse("conditional\n", conditional_response=True)
    response.etag = "large"
    response.accept_ranges = "bytes"
    return response


def seekable(req):
    """Read the body twice, which WebOb makes possible."""
    req.make_body_seekable()
    first = req.body_file_seekable.read()
    req.body_file_seekable.seek(0)
    return PyramidResponse(f"{len(first)} {req.body_file_seekable.read() == first} {req.content_length}\n")


with Configurator() as config:
    for _view in (urls, pieces, conditional, seekable):
        config.add_route(_view.__name__, f"/{_view.__name__}")
        config.add_view(_view, route_name=_view.__name__)
    config.add_route("large", "/large")
    config.add_view(lambda req: FileResponse(str(ROOT / "large.bin"), request=req), route_name="large")
    config.add_static_view("static", str(ROOT))
    on_pyramid = config.make_wsgi_app()


# -- Bottle

on_bottle = bottle.Bottle()


@on_bottle.route("/pieces/<number:int>")
def bottle_pieces(number):
    """Yield so many pieces, then fail."""
    for count in range(number):
        yield f"piece {count}\n"
    raise KeyError("as intended")


@on_bottle.route("/file/<name>")
def bottle_file(name):
    return bottle.static_file(name, root=str(ROOT))


@on_bottle.route("/form", method="POST")
def bottle_form():
    files = {name: len(item.file.read()) for name, item in bottle.request.files.items()}
    return {"form": dict(bottle.request.forms), "files": files, "chunked": bottle.request.chunked}


@on_bottle.route("/body", method="POST")
def bottle_body():
    return f"{len(bottle.request.body.read())} {bottle.request.content_length}\n"


# -- Flask, below middleware that changes what passes

on_flask = Flask(__name__)


@on_flask.route("/text")
def text():
    return "some words " * 1000


@on_flask.route("/stream")
def stream():
    return Response((f"chunk {number}\n" for number in range(50)), mimetype="text/plain")


@on_flask.route("/urls")
def flask_urls():
    return jsonify(url=request.url, root=request.url_root, there=url_for("text", _external=True))


@on_flask.route("/slash/")
def slash():
    return "slash\n"


@on_flask.route("/limited", methods=["POST"])
def limited():
    """Read the body by wrappers of one's own, and past them."""
    body = request.environ["wsgi.input"]
    part = LimitedStream(body, 50)
    return repr((part.read(10), part.readline(), part.exhaust(), body.read(20)))


@on_flask.route("/form", methods=["POST"])
def form():
    files = {name: len(item.read()) for name, item in request.files.items()}
    return jsonify(form=request.form.to_dict(flat=False), files=files)


@on_flask.route("/small", methods=["POST"])
def small():
    request.max_content_length = 1000
    return f"{len(request.get_data())}\n"


@on_flask.route("/whole", methods=["POST"])
def whole():
    return f"{len(get_input_stream(request.environ).read())}\n"


def counting(environ, start_response):
    """Count the chunks of a response, and add their number."""
    chunks = on_flask(environ, start_response)
    count = 0
    try:
        for count, chunk in enumerate(chunks, start=1):  # noqa: B007 - it is told below
            yield chunk
    finally:
        chunks.close()
    yield f"{count} chunks\n".encode()


def zipping(environ, start_response):
    """Compress a response as a whole."""
    head = []

    def start(status, headers, _exc_info=None):
        kept = [pair for pair in headers if pair[0].lower() != "content-length"]
        head.extend((status, [*kept, ("Content-Encoding", "gzip")]))

    body = gzip.compress(b"".join(on_flask(environ, start)), mtime=0)
    start_response(*head)
    return [body]


# -- the server's file wrapper


def from_within(environ, start_response):
    """Send a file from where it was left, in the wrapper that servers send by sendfile()."""
    file = (ROOT / "large.bin").open("rb")
    file.seek(100_000)
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](file, 4096)


def no_file(environ, start_response):
    """Send a part of what is no real file."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"more than five"), 2)


# -- Socket.IO, by polling

socketed = Flask("socketed")
_sockets = SocketIO(socketed, async_mode="threading")


@_sockets.on("question")
def answer(data):
    emit("answer", data)


app = DispatcherMiddleware(
    socketed,
    {
        "/falcon": on_falcon,
        "/pyramid": on_pyramid,
        "/bottle": on_bottle,
        "/whitenoise": WhiteNoise(not_found, root=str(ROOT)),
        "/flask": on_flask,
        "/counting": counting,
        "/zipping": zipping,
        "/within": from_within,
        "/no-file": no_file,
    },
)
