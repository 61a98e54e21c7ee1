"""Downloads of one file in blocks of several sizes, as several kinds of app give them."""

import os
from pathlib import Path

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse
from django.urls import path
from flask import Flask, send_file

#: What is downloaded: random bytes.
FILE = os.environ.get("BLOCKS_FILE", "")

flask_app = Flask("blocks")


@flask_app.get("/send_file")
def sent():
    return send_file(FILE, mimetype="application/octet-stream")


def responded(_request):
    return FileResponse(Path(FILE).open("rb"), content_type="application/octet-stream")


urlpatterns = [path("FileResponse", responded)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="benchmark", MIDDLEWARE=[])
django.setup()
django_app = get_wsgi_application()


def _blocks(size):
    with Path(FILE).open("rb") as file:
        while block := file.read(size):
            yield block


def _lines():
    with Path(FILE).open("rb") as file:
        yield from file


def app(environ, start_response):
    """Dispatch on the path: /raw/KIB, /lines, /write/KIB, else an app of a framework."""
    kind, _, kib = environ["PATH_INFO"].strip("/").partition("/")
    if kind == "send_file":
        return flask_app(environ, start_response)
    if kind == "FileResponse":
        return django_app(environ, start_response)
    write = start_response("200 OK", [("Content-Type", "application/octet-stream")])
    if kind == "raw":
        return _blocks(1024 * int(kib))
    if kind == "lines":
        return _lines()
    if kind == "write":
        for block in _blocks(1024 * int(kib)):
            write(block)
    return [b"ok\n"] if kind == "" else []
