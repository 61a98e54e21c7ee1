"""Requests that take minutes, through proxies that cut them after seconds."""

from typing import TYPE_CHECKING

from wsgi_timeout.lazy_names import lazy_names as _lazy_names

if TYPE_CHECKING:
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

# Imported when first used: importing redis-py alone takes half as long as importing Flask.
__getattr__ = _lazy_names(
    {
        "ConfigurationError": "wsgi_timeout.errors",
        "Function": "wsgi_timeout.functions.function",
        "FunctionCall": "wsgi_timeout.functions.function",
        "RequestTimeouts": "wsgi_timeout.integrations.extension",
        "Settings": "wsgi_timeout.settings",
        "Stub": "wsgi_timeout.integrations.stub",
        "WsgiTimeoutError": "wsgi_timeout.errors",
        "asgi_app": "wsgi_timeout.integrations.endpoints",
        "gateway": "wsgi_timeout.integrations.gateway",
        "gather": "wsgi_timeout.functions.function",
        "progress": "wsgi_timeout.current",
        "track": "wsgi_timeout.current",
        "web_endpoint": "wsgi_timeout.integrations.endpoints",
        "wsgi_app": "wsgi_timeout.integrations.endpoints",
        "wsgi_blueprint": "wsgi_timeout.integrations.blueprint",
    }
)
