"""The gevent worker class: `gunicorn -k wsgi_timeout.gunicorn_gevent.GeventWorker`."""

from wsgi_timeout.serving.gunicorn_gevent import GeventWorker

__all__ = ["GeventWorker"]
