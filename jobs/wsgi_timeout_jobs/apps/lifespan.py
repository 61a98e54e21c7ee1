"""The lifespan of an ASGI app (ASGI 3.0): its startup and shutdown, once per process."""

from __future__ import annotations

import asyncio
import logging
import queue
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from wsgi_timeout.errors import ConfigurationError

log = logging.getLogger("wsgi_timeout.worker")

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

#: Seconds that the app's shutdown may take.
_END_SECONDS = 10.0


class Lifespan:
    """The lifespan protocol: one task that runs as long as the process."""

    def __init__(self, app: AsgiApp, loop: asyncio.AbstractEventLoop) -> None:
        """Take the loop in which the app runs."""
        #: The lifespan state, which the app's startup fills and its requests get.
        self.state: dict[str, Any] = {}
        self._app = app
        self._loop = loop
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._supported = False

    def start(self) -> None:
        """Start the app; raises `ConfigurationError` if its startup fails."""
        self._task = asyncio.run_coroutine_threadsafe(self._run(), self._loop)
        answer = self._exchange("lifespan.startup", seconds=None)
        self._supported = answer["type"] == "lifespan.startup.complete"
        if answer["type"] == "lifespan.startup.failed":
            raise ConfigurationError(f"the ASGI app's startup failed: {answer.get('message', '')}")

    def stop(self) -> None:
        """Shut the app down, if it has a lifespan."""
        if self._supported:
            self._supported = False
            answer = self._exchange("lifespan.shutdown", seconds=_END_SECONDS)
            if answer["type"] == "lifespan.shutdown.failed":
                log.error("the ASGI app's shutdown failed: %s", answer.get("message", ""))

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }

        async def send(message: Message) -> None:
            self._from_app.put(message)

        try:
            await self._app(scope, self._to_app.get, send)
        except Exception:
            # By the protocol an app without a lifespan raises; it is served without one.
            log.debug("the ASGI app has no lifespan", exc_info=True)
        self._from_app.put({"type": "ended"})

    def _exchange(self, kind: str, seconds: float | None) -> Message:
        self._loop.call_soon_threadsafe(self._to_app.put_nowait, {"type": kind})
        try:
            return self._from_app.get(timeout=seconds)
        except queue.Empty:
            log.warning("the ASGI app did not answer %s within %g s", kind, seconds)
            return {"type": "ended"}
