"""The web deployment, as a gunicorn configuration: `gunicorn -c python:wsgi_timeout.gunicorn_conf`."""

from wsgi_timeout.serving.gunicorn_conf import *  # noqa: F403 - a gunicorn configuration is its module's names
