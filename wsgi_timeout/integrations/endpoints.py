"""The decorators of web functions: `@wsgi_app()`, `@asgi_app()`, `@web_endpoint(method=...)`.

They only mark a function: `Stub.function` takes it from there, and a worker builds the app.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, ParamSpec, TypeVar

from wsgi_timeout.errors import ConfigurationError

P = ParamSpec("P")
R = TypeVar("R")

Kind = Literal["wsgi", "asgi", "endpoint"]

#: Labels and queues of functions: they are parts of paths and of Redis keys.
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DECORATORS: dict[Kind, str] = {"wsgi": "wsgi_app", "asgi": "asgi_app", "endpoint": "web_endpoint"}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class WebFunction(Generic[P, R]):
    """A marked function; `kind` says what it is or returns."""

    function: Callable[P, R]
    kind: Kind
    label: str
    wait_for_response: bool
    #: The HTTP method of an endpoint; empty for an app, which has routes of its own.
    method: str = ""


def wsgi_app(
    *args: Any, wait_for_response: bool = True, label: str | None = None
) -> Callable[[Callable[P, R]], WebFunction[P, R]]:
    """Mark a function that returns a WSGI app; it is called in workers only, once per process.

    Args:
        args: nothing: all options are keywords.
        wait_for_response: False answers each request with 202 and a result URL at once.
        label: the name under which the stub mounts it, by default the function's.

    Returns:
        A decorator, for right above the `def` and below `@stub.function()`.

    Raises:
        ConfigurationError: it was written without parentheses, or the label cannot stand in a path.
    """
    _no_parentheses("wsgi_app()", args)
    return _marker("wsgi", label, wait_for_response=wait_for_response)


def asgi_app(
    *args: Any, wait_for_response: bool = True, label: str | None = None
) -> Callable[[Callable[P, R]], WebFunction[P, R]]:
    """Mark a function that returns an ASGI app; it is called in workers only, once per process.

    Args:
        args: nothing: all options are keywords.
        wait_for_response: False answers each request with 202 and a result URL at once.
        label: the name under which the stub mounts it, by default the function's.

    Returns:
        A decorator, for right above the `def` and below `@stub.function()`.

    Raises:
        ConfigurationError: it was written without parentheses, or the label cannot stand in a path.
    """
    _no_parentheses("asgi_app()", args)
    return _marker("asgi", label, wait_for_response=wait_for_response)


def web_endpoint(
    *args: Any, method: str = "GET", wait_for_response: bool = True, label: str | None = None
) -> Callable[[Callable[P, R]], WebFunction[P, R]]:
    """Mark a function that answers requests of one method.

    Its parameters come from the query string, a form or a JSON object, and are converted by their type
    hints; a request that does not fit gets 422. A function with one parameter, whose type is a Pydantic
    model or a dict, gets the whole JSON object as that parameter. It may return what a Flask view may,
    and numbers, booleans and None, as JSON.

    Args:
        args: nothing: all options are keywords.
        method: "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE" or "OPTIONS".
        wait_for_response: False answers each request with 202 and a result URL at once.
        label: the name under which the stub mounts it, by default the function's.

    Returns:
        A decorator, for right above the `def` and below `@stub.function()`.

    Raises:
        ConfigurationError: it was written without parentheses, with another method, or with a label that
            cannot stand in a path.
    """
    _no_parentheses('web_endpoint(method="GET")', args)
    if method.upper() not in _METHODS:
        raise ConfigurationError(f"web_endpoint(method={method!r}): use one of {', '.join(sorted(_METHODS))}")
    return _marker("endpoint", label, wait_for_response=wait_for_response, method=method.upper())


def _marker(
    kind: Kind, label: str | None, *, wait_for_response: bool, method: str = ""
) -> Callable[[Callable[P, R]], WebFunction[P, R]]:
    if label is not None and not LABEL.fullmatch(label):
        raise ConfigurationError(f"label {label!r}: use letters, digits, '-', '_' and '.', as in 'my-app'")

    def mark(function: Callable[P, R]) -> WebFunction[P, R]:
        if not inspect.isroutine(function):
            raise ConfigurationError(
                f"{function!r} is not a function: put @stub.function() above @{_DECORATORS[kind]}(), "
                "which stands right above `def`"
            )
        return WebFunction(function, kind, label or function.__name__, wait_for_response, method)

    return mark


def _no_parentheses(right: str, args: tuple[Any, ...]) -> None:
    if args:
        raise ConfigurationError(
            f"write @{right} with parentheses and keyword arguments, got {args[0]!r} as a positional one"
        )
