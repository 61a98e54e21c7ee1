"""What Granian serves: the front alone, as gunicorn has it."""

from wsgi_timeout import gateway


def web():
    return gateway("apps:noop")
