"""A heavy legacy app, which cannot be imported where its variable is not set."""

import os
import time

from flask import Flask, request

if "ONLY_IN_WORKERS" not in os.environ:
    raise ImportError("this app is for workers")

app = Flask(__name__)


@app.route("/", defaults={"path": ""})
@app.route("/<path:path>")
def show(path):
    return {"path": path, "root": request.script_root, "url": request.url, "pid": os.getpid()}


@app.get("/hold")
def hold():
    time.sleep(10)
    return "held"
