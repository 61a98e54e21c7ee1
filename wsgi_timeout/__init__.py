"""Requests that take minutes, through proxies that cut them after seconds."""

from wsgi_timeout.current import progress, track
from wsgi_timeout.errors import ConfigurationError, WsgiTimeoutError
from wsgi_timeout.functions.function import Function, FunctionCall, gather
from wsgi_timeout.integrations.blueprint import wsgi_blueprint
from wsgi_timeout.integrations.endpoints import asgi_app, web_endpoint, wsgi_app
from wsgi_timeout.integrations.extension import RequestTimeouts
from wsgi_timeout.integrations.gateway import gateway
from wsgi_timeout.integrations.stub import Stub
from wsgi_timeout.settings import Settings

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
    "track",
    "web_endpoint",
    "wsgi_app",
    "wsgi_blueprint",
]
