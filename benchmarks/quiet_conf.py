"""Our web deployment without a line a request, which no other contestant writes."""

from wsgi_timeout.serving.gunicorn_conf import *  # noqa: F403

accesslog = None
# As the workers' log level here: at `info` the end of each call is a line too.
loglevel = "warning"
keepalive = 60
