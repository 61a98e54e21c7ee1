"""The web deployment, as `gunicorn -c python:wsgi_timeout.gunicorn_conf` reads it, for use from here."""

from wsgi_timeout.serving.gunicorn_conf import *  # noqa: F403 - a gunicorn configuration is its module's names
