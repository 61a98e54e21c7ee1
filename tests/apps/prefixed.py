"""`bare:app` below a prefix, and behind a proxy: alone, or the calls of a name."""

import bare
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from wsgi_timeout import gateway


def _app(name):
    return gateway("bare:app", name=name) if name else bare.app


def mounted(name=""):
    """Mount the app twice, one place being within the other."""
    app = _app(name)
    return DispatcherMiddleware(NotFound(), {"/mounted": app, "/mounted/deep": app})


def fixed(name=""):
    """Believe one proxy."""
    return ProxyFix(_app(name), x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)
