"""The gthread worker class: `gunicorn -k wsgi_timeout.gunicorn_worker.ThreadWorker`."""

from wsgi_timeout.serving.gunicorn_logger import Logger
from wsgi_timeout.serving.gunicorn_threads import ThreadWorker

__all__ = ["Logger", "ThreadWorker"]
