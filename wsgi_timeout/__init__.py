"""Requests that take minutes, through proxies that cut them after seconds."""

from wsgi_timeout.blueprint import wsgi_blueprint
from wsgi_timeout.current import progress
from wsgi_timeout.errors import ConfigurationError, WsgiTimeoutError
from wsgi_timeout.extension import RequestTimeouts
from wsgi_timeout.gateway import gateway
from wsgi_timeout.settings import Settings

__all__ = [
    "ConfigurationError",
    "RequestTimeouts",
    "Settings",
    "WsgiTimeoutError",
    "gateway",
    "progress",
    "wsgi_blueprint",
]
