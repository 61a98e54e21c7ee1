"""Functions that run as calls: here, elsewhere and waited for, or spawned."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, ParamSpec, TypeVar, overload

from wsgi_timeout.current import current_queue, current_slots
from wsgi_timeout.errors import NoWorker, RedisUnavailable
from wsgi_timeout.functions import payload
from wsgi_timeout.functions.call import FunctionCall
from wsgi_timeout.functions.client import Client, client
from wsgi_timeout.retrying import retry
from wsgi_timeout.store import keys
from wsgi_timeout.store.messages import FunctionRequest
from wsgi_timeout.store.record import NewCall, Origin, new_id
from wsgi_timeout.store.redis_errors import UNAVAILABLE, unavailable_is_refusal
from wsgi_timeout.store.workers import Workers

__all__ = ["Function", "FunctionCall", "gather"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

#: Seconds after the last write for which large arguments are kept while their call is not queued.
_CHUNK_TTL = 60
#: Seconds after which a `remote` call is cancelled whose caller waits no more. Callers say every five
#: seconds that they wait; one may be cut off, or hold the GIL, for a while.
_CALLER_SECONDS = 120.0
#: Seconds that the result of `remote` is kept for a caller that is cut off from Redis.
_CALLER_RESULT_TTL = 600.0
#: Seconds between two tries while there is no worker yet, or Redis is away.
_RETRY_SECONDS = 0.1


class Function(Generic[P, R]):
    """A function of a stub, as `@stub.function()` makes it.

    `f(...)` and `f.local(...)` run it here, `f.remote(...)` runs it in a worker and waits for it,
    `f.spawn(...)` runs it in a worker and returns a handle at once.
    """

    def __init__(
        self,
        function: Callable[P, R],
        queue: Callable[[], str],
        *,
        timeout: float,
        retries: int,
    ) -> None:
        """Wrap a function; `Stub.function` does it.

        Args:
            function: what workers run; found there by its name.
            queue: returns the name of the queue, which may be known only later.
            timeout: seconds that it may run.
            retries: how often it runs again after an exception.
        """
        self._function = function
        self._queue = queue
        self._timeout = timeout
        self._retries = retries
        functools.update_wrapper(self, function)

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in this process, as if it had no decorator."""
        return self._function(*args, **kwargs)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in this process; the same as `local`."""
        return self._function(*args, **kwargs)

    def spawn(self, /, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        """Queue the function for a worker, and return at once.

        One round trip to Redis for arguments of up to 64 KiB. Once this returns the call is Redis':
        it runs also when this process ends. It waits for a worker up to `queue_ttl`, or
        `function_result_ttl` where that is longer (7 days). With `WSGI_TIMEOUT_DURABILITY=fsync` it is on
        Redis' disk then, too.

        Args:
            args: the function's positional arguments: anything that cloudpickle can pickle, together at
                most `max_payload` bytes (100 MiB).
            kwargs: its keyword arguments.

        Returns:
            The handle of the call.

        Raises:
            TypeError: an argument cannot be pickled.
            PayloadTooLarge: the arguments are larger than `max_payload`.
            QueueFull: `max_spawned` calls wait already.
            RedisUnavailable: Redis did not take the call within `worker_wait` seconds.
            ConfigurationError: no secret is set for a Redis of your own (`WSGI_TIMEOUT_SECRET`).
        """
        return self._enqueue(args, kwargs, waits=False)

    def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in a worker, wait for it, and return its result.

        The result is deleted then. If the caller is interrupted meanwhile, as a handler is at its timeout,
        the call is cancelled; if its process dies, two minutes later: nobody else has the call's id.

        Args:
            args: the function's positional arguments, as for `spawn`.
            kwargs: its keyword arguments.

        Returns:
            What the function returned.

        Raises:
            NoWorker: this process is the only one that could run it, or no worker has come up within
                `worker_wait` seconds (5).
            Exception: what `spawn` and `FunctionCall.get` raise.
        """
        queue = self._queue()
        if current_queue() == queue and current_slots() < 2:
            with unavailable_is_refusal():
                processes = Workers.of(client().calls(queue)).slots()
            if processes < 2:
                raise NoWorker(
                    f"{self._function.__name__}.remote() would wait for ever: this is the only worker "
                    f"process of queue wt:{queue}; start more with `--function-processes`, or call .local()"
                )
        call = self._enqueue(args, kwargs, waits=True)
        return call._take(queue)  # noqa: SLF001 - not for users, who would lose the result

    def _enqueue(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, waits: bool) -> FunctionCall[R]:
        here = client()
        settings = here.settings
        call_id = new_id()
        name = self._function.__name__
        queue_ttl = max(settings.queue_ttl, settings.function_result_ttl)
        runs = self._retries + 1
        until = time.time() + runs * (queue_ttl + self._timeout)
        # The signature covers the function's name, the number of runs and the deadline too: whoever can write
        # to Redis can have no other function run with these arguments, nor this one more often or later.
        signed = (name, args, kwargs, runs, until)
        blob = payload.pack(signed, call_id, "arguments", settings.max_payload)
        inline = len(blob) <= settings.inline_body
        request = FunctionRequest(
            function=name,
            arguments=blob if inline else None,
            timeout=self._timeout,
            retries=self._retries,
            retry_backoff=settings.retry_backoff,
            inline_body=settings.inline_body,
            max_payload=settings.max_payload,
            result_ttl=min(settings.function_result_ttl, _CALLER_RESULT_TTL if waits else math.inf),
        )
        call = NewCall(
            id=call_id,
            token="",
            path=name,
            method="CALL",
            request=request,
            max_attempts=1,
            max_queued=settings.max_spawned,
            max_buffered_bytes=settings.max_buffered_bytes,
            queue_ttl=queue_ttl,
            origin=Origin(route=name),
            payload_key="" if inline else keys.arguments(call_id),
            payload_bytes=0 if inline else len(blob),
            needs_worker=waits,
            abandon_after=_CALLER_SECONDS if waits else 0.0,
            durable=settings.durable,
        )
        with unavailable_is_refusal():
            if not inline:
                for number, chunk in payload.chunks_of(blob):
                    with here.shield():
                        payload.write_chunk(here.redis, keys.arguments(call_id), number, chunk, _CHUNK_TTL)
            _enqueue(here, self._queue(), call)
        spawned: FunctionCall[R] = FunctionCall(call_id)
        spawned._spawned = time.monotonic()  # noqa: SLF001 - for its `get`
        return spawned


@overload
def gather() -> list[Any]: ...
@overload
def gather(*calls: FunctionCall[T]) -> list[T]: ...
def gather(*calls: FunctionCall[Any]) -> list[Any]:
    """Wait for several calls, and return their results in the order of the arguments.

    Args:
        calls: handles, as `spawn` returns them; none gives an empty list.

    Returns:
        The list of results.

    Raises:
        Exception: what `get` raises for the first call, in this order, that failed. The other calls go on.
    """
    return [call.get() for call in calls]


def _enqueue(here: Client, queue: str, call: NewCall) -> None:
    """Enqueue a call, trying again for `worker_wait` seconds.

    A call that needs a worker waits for the first one to start. And if a reply was lost, the call may have
    been accepted: the same call is sent again before the caller is told that it was not.
    """
    calls = here.calls(queue)

    def enqueue() -> None:
        with unavailable_is_refusal(), here.shield():
            calls.enqueue(call)

    seconds = here.settings.worker_wait
    try:
        retry(enqueue, (NoWorker, RedisUnavailable), pause=_RETRY_SECONDS, seconds=seconds)
    except RedisUnavailable:
        if call.durable:
            # It may lie in the queue, not on disk yet: whoever is refused spawns it again.
            with suppress(*UNAVAILABLE):
                calls.withdraw(call.id)
        raise
