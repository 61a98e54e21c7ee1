"""A method that can be awaited too: `call.get(timeout)`, and `await call.get.aio(timeout)`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any, Generic, Protocol, TypeVar, overload

from wsgi_timeout.compat import Self
from wsgi_timeout.errors import ResultNotReady
from wsgi_timeout.functions.client import client

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

#: Seconds that async code waits in one thread.
_SLICE_SECONDS = 2.0


class _Gets(Protocol[R_co]):
    def _get(self, timeout: float | None = None) -> R_co: ...


class _BoundGet(Generic[R]):
    """`call.get`: call it to wait for the result, or await `call.get.aio` in async code."""

    def __init__(self, get: Callable[[float | None], R]) -> None:
        self._get = get

    def __call__(self, timeout: float | None = None) -> R:
        """Wait up to `timeout` seconds and return the result; see `FunctionCall.get`."""
        return self._get(timeout)

    async def aio(self, timeout: float | None = None) -> R:
        """Wait for the result without blocking the event loop: `await call.get.aio(timeout=10)`.

        Up to 100 coroutines of one process wait at the same time, others take turns. Cancelling the
        coroutine stops the waiting, and leaves the call alone.

        Args:
            timeout: seconds; None waits until the call has ended, 0 only looks.

        Returns:
            What the function returned.

        Raises:
            Exception: the same as `FunctionCall.get`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        threads = client().threads
        while True:
            left = _SLICE_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
            get = partial(self._get, min(left, _SLICE_SECONDS))
            try:
                # In slices: when it is cancelled its thread soon ends too, which an exit waits for.
                return await asyncio.get_running_loop().run_in_executor(threads, get)
            except ResultNotReady:
                if deadline is not None and time.monotonic() >= deadline:
                    raise


class with_aio:  # noqa: N801 - a decorator
    """Makes a method `get` one that has `get.aio` too."""

    def __init__(self, method: Callable[[Any, float | None], Any]) -> None:
        self._method = method
        # For `help()` and documentation tools: the name, signature and docstring of the method.
        update_wrapper(self, method)

    @overload
    def __get__(self, call: None, owner: type[object]) -> Self: ...
    @overload
    def __get__(self, call: _Gets[R], owner: type[object]) -> _BoundGet[R]: ...
    def __get__(self, call: _Gets[Any] | None, owner: type[object]) -> Any:
        return self if call is None else _BoundGet(partial(self._method, call))

    def __call__(self, call: _Gets[R], timeout: float | None = None) -> R:
        result: R = self._method(call, timeout)
        return result
