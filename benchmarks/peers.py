"""The same request through other job queues, each as its documentation has users write it.

Every web half is a Flask app that hands the WSGI environ and the body over, waits for the result and
answers with it; every worker runs the app with werkzeug. One Redis for all, in `REDIS_URL`.
"""

import io
import os
import sys

import redis
import rq
from apps import noop
from flask import Flask, Response, request
from werkzeug.test import run_wsgi_app

URL = os.environ.get("REDIS_URL", "redis://localhost")
WAIT_SECONDS = 150


def run(environ, body):
    """Run the app: what each worker does."""
    environ |= {
        "wsgi.input": io.BytesIO(body.encode("latin-1")),
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    iterable, status, headers = run_wsgi_app(noop, environ)
    return [status, headers.to_wsgi_list(), b"".join(iterable).decode("latin-1")]


def web(call):
    """Return the web half around `call(environ, body)`."""
    app = Flask("peer")

    @app.route("/", methods=["GET", "POST"])
    def view():
        environ = {key: value for key, value in request.environ.items() if isinstance(value, str)}
        status, headers, body = call(environ, request.get_data().decode("latin-1"))
        return Response(body.encode("latin-1"), status, [tuple(header) for header in headers])

    return app


# -- RQ, with `rq worker` or `rq worker --worker-class rq.SimpleWorker`


def rq_web():
    # redis-py's own time limit of 5 s ends a longer wait for a result with an error.
    queue = rq.Queue("peers", connection=redis.Redis.from_url(URL, socket_timeout=WAIT_SECONDS))

    def call(environ, body):
        job = queue.enqueue(run, environ, body, result_ttl=60)
        return job.latest_result(timeout=WAIT_SECONDS).return_value

    return web(call)


# -- Celery, Redis as broker and result back end

try:
    import celery
except ImportError:
    celery = None
else:
    over = URL.replace("unix://", "redis+socket://")
    celery_app = celery.Celery("peers", broker=over, backend=over)
    celery_app.conf.update(
        broker_transport_options={"global_keyprefix": "celery:"},
        worker_prefetch_multiplier=1,
        task_ignore_result=False,
        result_expires=60,
        broker_connection_retry_on_startup=True,
    )
    celery_run = celery_app.task(name="peers.run")(run)


def celery_web():
    return web(lambda environ, body: celery_run.delay(environ, body).get(timeout=WAIT_SECONDS))


# -- Dramatiq, Redis as broker and result back end

try:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend
except ImportError:
    dramatiq = None
else:
    broker = RedisBroker(url=URL, namespace="dramatiq")
    broker.add_middleware(Results(backend=RedisBackend(url=URL), result_ttl=60_000))
    dramatiq.set_broker(broker)
    dramatiq_run = dramatiq.actor(store_results=True)(run)


def dramatiq_web():
    def call(environ, body):
        return dramatiq_run.send(environ, body).get_result(block=True, timeout=WAIT_SECONDS * 1000)

    return web(call)


# -- Huey

try:
    import huey
except ImportError:
    huey = None
else:
    huey_app = huey.RedisHuey("peers", url=URL, blocking=True, notify_result=True)
    huey_run = huey_app.task()(run)


def huey_web():
    return web(lambda environ, body: huey_run(environ, body).get(blocking=True, timeout=WAIT_SECONDS))


# -- gunicorn's dirty workers: no Redis

try:
    from gunicorn.dirty import DirtyApp, get_dirty_client
except ImportError:
    DirtyApp = object


class Dirty(DirtyApp):
    def init(self):
        pass

    def run(self, environ, body):
        return run(environ, body)

    def close(self):
        pass


def dirty_web():
    def call(environ, body):
        return get_dirty_client(timeout=WAIT_SECONDS).execute("peers:Dirty", "run", environ, body)

    return web(call)
