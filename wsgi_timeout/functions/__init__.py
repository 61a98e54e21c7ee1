"""Function calls that are spawned, waited for and polled."""

from wsgi_timeout.functions.call import FunctionCall
from wsgi_timeout.functions.function import Function, gather

__all__ = ["Function", "FunctionCall", "gather"]
