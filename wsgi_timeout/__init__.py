"""Requests that take minutes, through proxies that cut them after seconds."""

from wsgi_timeout.current import progress
from wsgi_timeout.errors import ConfigurationError, WsgiTimeoutError
from wsgi_timeout.gateway import gateway
from wsgi_timeout.settings import Settings

__all__ = ["ConfigurationError", "Settings", "WsgiTimeoutError", "gateway", "progress"]
