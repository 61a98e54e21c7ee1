"""The gthread worker class: `gunicorn -k wsgi_timeout.gunicorn_worker.ThreadWorker`."""

from wsgi_timeout.serving.gunicorn_threads import Logger, ThreadWorker

__all__ = ["Logger", "ThreadWorker"]
