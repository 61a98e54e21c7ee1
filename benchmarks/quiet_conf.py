"""Our web deployment without an access log, which no other contestant writes."""

from wsgi_timeout.serving.gunicorn_conf import *  # noqa: F403

accesslog = None
keepalive = 60
