"""The web deployment: what `gunicorn -c python:wsgi_timeout.gunicorn_conf` reads, for use from this folder."""

from wsgi_timeout.gunicorn_conf import *  # noqa: F403 - a gunicorn configuration is its module's names
