"""A method with an awaitable form: `call.get(timeout)`, and `await call.get.aio(timeout)`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial, update_wrapper
from typing import Any, Generic, Protocol, TypeVar, overload

from wsgi_timeout.compat import Self
from wsgi_timeout.errors import ResultNotReady
from wsgi_timeout.functions.client import Client, client
from wsgi_timeout.store.redis_errors import UNAVAILABLE, ErrorReply
from wsgi_timeout.store.time_limit import LATE_SECONDS

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

#: Seconds between two checks of a call, for wakes that were lost.
_RECHECK_SECONDS = 2.0


class _Gets(Protocol[R_co]):
    object_id: str

    def _get(self, timeout: float | None = None) -> R_co: ...


class _BoundGet(Generic[R]):
    """`call.get`: call it to wait for the result, or await `call.get.aio` in async code."""

    def __init__(self, get: Callable[[float | None], R], call_id: str) -> None:
        self._get = get
        self._call_id = call_id

    def __call__(self, timeout: float | None = None) -> R:
        """Wait up to `timeout` seconds and return the result; see `FunctionCall.get`."""
        return self._get(timeout)

    async def aio(self, timeout: float | None = None) -> R:
        """Wait for the result without blocking the event loop: `await call.get.aio(timeout=10)`.

        However many wait, none holds a thread or a connection. Cancelling the coroutine stops the
        waiting, and leaves the call alone.

        Args:
            timeout: seconds; None waits until the call has ended, 0 only looks.

        Returns:
            What the function returned.

        Raises:
            Exception: the same as `FunctionCall.get`.
        """
        here = client()
        if timeout == 0:
            if await self._ended(here, "", 0.0):
                return await self._read(here)
            raise self._not_ready()
        deadline = None if timeout is None else time.monotonic() + timeout
        woken = asyncio.Event()
        with here.shield():
            waiter = here.listener.waiter(self._call_id, on_wake=_setter(woken))
        with waiter:
            while True:
                woken.clear()
                left = math.inf if deadline is None else deadline - time.monotonic()
                if await self._ended(here, here.listener.inbox, left):
                    # ResultNotReady here means that Redis went away in between.
                    with suppress(ResultNotReady):
                        return await self._read(here)
                left = _RECHECK_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise self._not_ready()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(woken.wait(), min(left, _RECHECK_SECONDS))

    async def _ended(self, here: Client, inbox: str, seconds: float) -> bool:
        """Return whether there is something to read: the call has ended, or does not exist."""
        with here.shield():
            look = here.looks.ask(self._call_id, inbox)
        try:
            answer = asyncio.wrap_future(look)
            return await asyncio.wait_for(answer, _limit(seconds)) in {b"ended", None}
        except (*UNAVAILABLE, asyncio.TimeoutError):
            return False
        except ErrorReply:
            return True  # the key is no record of ours: reading it raises the right error

    async def _read(self, here: Client) -> R:
        return await asyncio.get_running_loop().run_in_executor(here.threads, self._get, 0)

    def _not_ready(self) -> ResultNotReady:
        return ResultNotReady(f"call {self._call_id} has not ended yet")


def _limit(seconds: float) -> float | None:
    return None if seconds == math.inf else max(0.0, seconds) + LATE_SECONDS


def _setter(event: asyncio.Event) -> Callable[[], None]:
    """Return a function that sets an event from another thread, and does nothing once its loop is closed."""
    loop = asyncio.get_running_loop()

    def set_it() -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(event.set)

    return set_it


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
        return self if call is None else _BoundGet(partial(self._method, call), call.object_id)

    def __call__(self, call: _Gets[R], timeout: float | None = None) -> R:
        result: R = self._method(call, timeout)
        return result
