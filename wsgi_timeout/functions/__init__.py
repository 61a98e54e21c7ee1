"""Function calls that are spawned, waited for and polled."""

from wsgi_timeout.functions.call import FunctionCall, gather
from wsgi_timeout.functions.function import Function

__all__ = ["Function", "FunctionCall", "gather"]
