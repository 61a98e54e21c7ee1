"""Spawn a slow function and poll for its result: with Flask.

Serve it with `wsgi-timeout serve flask_polling.py:stub`, then

    curl -X POST http://127.0.0.1:8000/accept
    curl -i http://127.0.0.1:8000/result/fc-...
"""

import time

from flask import Flask, render_template

from wsgi_timeout import Stub, wsgi_app
from wsgi_timeout.errors import OutputExpiredError
from wsgi_timeout.functions import FunctionCall

stub = Stub()
web_app = Flask(__name__)


@stub.function()
@wsgi_app()
def flask_app():
    return web_app


@stub.function()
def slow_operation():
    time.sleep(5)
    return {"pages": 3}


@web_app.get("/")
def index():
    return render_template("index.html")


@web_app.post("/accept")
def accept_job():
    call = slow_operation.spawn()
    return {"call_id": call.object_id}


@web_app.get("/result/<call_id>")
def poll_results(call_id):
    function_call = FunctionCall.from_id(call_id)
    try:
        return function_call.get(timeout=0)
    except TimeoutError:
        return {}, 202
    except OutputExpiredError:
        return {}, 404
