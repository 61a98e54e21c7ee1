"""The gateway to `waiting:app` behind what sets a strict Content-Security-Policy on every answer."""

import os

from wsgi_timeout import gateway

POLICY = "default-src 'self'; script-src 'self'; style-src 'self'"
inner = gateway("waiting:app", name=os.environ["NAME"])


def app(environ, start_response):
    def start(status, headers, *exc_info):
        return start_response(status, [*headers, ("Content-Security-Policy", POLICY)], *exc_info)

    return inner(environ, start)
