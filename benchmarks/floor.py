"""The least that running a request elsewhere can cost: nothing kept, nothing safe.

A Flask view pushes the call to Redis, one worker pops it and runs the WSGI app, one reply wakes the
waiter. Two round trips in the worker (pop, reply), two in the web process (push, pop of the reply).
Written once, as a yardstick, and left alone since.

    gunicorn -k gthread --threads 216 'floor:web()'        python floor.py worker
"""

import importlib
import io
import os
import sys
import threading
import uuid

import msgpack
import redis
from flask import Flask, Response, request
from werkzeug.test import run_wsgi_app

QUEUE = "floor:queue"


def client():
    return redis.Redis.from_url(os.environ["REDIS_URL"], max_connections=1000)


class Waiters:
    """One thread a process pops the process's inbox and wakes whoever waits."""

    def __init__(self):
        self.inbox = "floor:" + uuid.uuid4().hex
        self.waiting = {}
        self.redis = client()
        self.listener = client()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            answer = self.listener.blpop([self.inbox], 1)
            if answer:
                call_id, *response = msgpack.unpackb(answer[1])
                entry = self.waiting.pop(call_id)
                entry[1] = response
                entry[0].set()

    def call(self, environ, body):
        call_id = uuid.uuid4().hex
        entry = self.waiting[call_id] = [threading.Event(), None]
        self.redis.rpush(QUEUE, msgpack.packb([call_id, self.inbox, environ, body]))
        entry[0].wait(150)
        return entry[1]


def web():
    app = Flask("floor")
    lock = threading.Lock()
    made = []

    def waiters():
        with lock:
            if not made:
                made.append(Waiters())
        return made[0]

    @app.route("/", defaults={"path": ""}, methods=["GET", "POST"])
    @app.route("/<path:path>", methods=["GET", "POST"])
    def call(path):  # noqa: ARG001
        environ = {key: value for key, value in request.environ.items() if isinstance(value, str)}
        status, headers, body = waiters().call(environ, request.get_data())
        return Response(body, status, headers)

    return app


def worker():
    module, _, attr = os.environ.get("BENCH_APP", "apps:noop").partition(":")
    app = getattr(importlib.import_module(module), attr)
    connection = client()
    while True:
        popped = connection.blpop([QUEUE], 1)
        if not popped:
            continue
        call_id, inbox, environ, body = msgpack.unpackb(popped[1])
        environ |= {
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        iterable, status, headers = run_wsgi_app(app, environ)
        response = [call_id, status, headers.to_wsgi_list(), b"".join(iterable)]
        connection.rpush(inbox, msgpack.packb(response))


if __name__ == "__main__":
    worker()
