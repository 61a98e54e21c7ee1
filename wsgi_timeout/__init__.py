"""Requests that take minutes, through proxies that cut them after seconds."""

from wsgi_timeout.blueprint import wsgi_blueprint
from wsgi_timeout.current import progress
from wsgi_timeout.endpoints import asgi_app, web_endpoint, wsgi_app
from wsgi_timeout.errors import ConfigurationError, WsgiTimeoutError
from wsgi_timeout.extension import RequestTimeouts
from wsgi_timeout.functions import Function, FunctionCall, gather
from wsgi_timeout.gateway import gateway
from wsgi_timeout.settings import Settings
from wsgi_timeout.stub import Stub

__all__ = [
    "ConfigurationError",
    "Function",
    "FunctionCall",
    "RequestTimeouts",
    "Settings",
    "Stub",
    "WsgiTimeoutError",
    "asgi_app",
    "gateway",
    "gather",
    "progress",
    "web_endpoint",
    "wsgi_app",
    "wsgi_blueprint",
]
