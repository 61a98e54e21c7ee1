"""`Stub`: web functions and functions of one program, run by workers."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from wsgi_timeout import secret
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.front.front import Front
from wsgi_timeout.functions.function import Function
from wsgi_timeout.http.mounts import Mount, Mounts
from wsgi_timeout.http.routes import Routes
from wsgi_timeout.integrations.endpoints import LABEL, WebFunction
from wsgi_timeout.settings import NAME_VARIABLE, Settings
from wsgi_timeout.store.connection import redis_url
from wsgi_timeout.target import check_name

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

P = ParamSpec("P")
R = TypeVar("R")


#: The queue of plain functions, after the stub's name.
FUNCTIONS = "functions"

_DAY_SECONDS = 86_400.0


class Stub:
    """A WSGI callable whose web functions, and functions, run in worker processes.

    Serve it with `wsgi-timeout serve FILE.py:stub`, or with gunicorn and `wsgi-timeout worker FILE.py:stub`.
    One web function is mounted at `/`; of several, each at `/<label>`.
    """

    def __init__(self, name: str | None = None) -> None:
        """Make a stub; one per program.

        Args:
            name: the queue's name, `wt:<name>`, by default the top module in which the stub is made. The
                environment's `WSGI_TIMEOUT_NAME`, which `--name` sets, decides over it.

        Raises:
            ConfigurationError: the name is no text, or has other characters than letters, digits, _, - and .
        """
        if name is not None and not isinstance(name, str):
            raise ConfigurationError(f"Stub({name!r}): the name is text, as in Stub('ocr')")
        self.explicit_name = None if name is None else check_name(name)
        # The module that calls us is the program, wherever it is imported from.
        self._module = sys._getframe(1).f_globals.get("__name__", "stub")  # noqa: SLF001
        #: Web functions by their label, and functions by their name: what workers run.
        self.web: dict[str, WebFunction[Any, Any]] = {}
        self.functions: dict[str, Function[Any, Any]] = {}
        #: Queues of functions, after the stub's name.
        self.queues: set[str] = set()
        self._mounted: dict[str, Mount] = {}
        self._lock = threading.Lock()
        self._front: Front | None = None

    @property
    def name(self) -> str:
        """The name of the stub's queue, `wt:<name>`."""
        return os.environ.get(NAME_VARIABLE) or self.explicit_name or self._module_name()

    def _templates(self) -> list[Path]:
        file = getattr(sys.modules.get(self._module), "__file__", None)
        return [Path(file).resolve().parent / "templates"] if file else []

    def _module_name(self) -> str:
        if self._module != "__main__":
            return str(self._module).partition(".")[0]
        script = getattr(sys.modules["__main__"], "__file__", None)
        return Path(script).stem if script else "stub"

    def function(
        self,
        *args: Any,
        timeout: float | None = None,
        retries: int = 0,
        max_attempts: int | None = None,
        queue: str = FUNCTIONS,
    ) -> _Decorator:
        """Make a function, or a web function, of this program run in workers.

        Args:
            args: nothing: all options are keywords.
            timeout: seconds that it may run, 1 s to 24 h. By default 300 for a function, the setting
                `timeout` for a web function.
            retries: how often a function runs again after an exception, with pauses that double from
                `retry_backoff` (1 s) up to 60 s.
            max_attempts: how often a web function's call may run when workers die under it, by default the
                setting of this name (2).
            queue: gives functions worker processes of their own: `wt:<name>:<queue>`.

        Returns:
            A decorator: of a function it makes a `Function`; a web function stays what it is.

        Raises:
            ConfigurationError: it was written without parentheses, or an option is out of its range.
        """
        if args:
            raise ConfigurationError(
                f"write @stub.function() with parentheses and keyword arguments, got {args[0]!r} as a "
                "positional one"
            )
        if timeout is not None and not (isinstance(timeout, int | float) and 1 <= timeout <= _DAY_SECONDS):
            raise ConfigurationError(f"timeout={timeout!r}: from 1 s to 24 h, in seconds")
        if not isinstance(retries, int) or retries < 0:
            raise ConfigurationError(f"retries={retries!r}: a whole number, 0 or more")
        if max_attempts is not None and not (isinstance(max_attempts, int) and max_attempts >= 1):
            raise ConfigurationError(f"max_attempts={max_attempts!r}: a whole number, 1 or more")
        if not LABEL.fullmatch(queue):
            raise ConfigurationError(
                f"queue={queue!r}: use letters, digits, '-', '_' and '.', as in 'reports'"
            )
        web = partial(self._add_web, timeout=timeout, max_attempts=max_attempts)
        function = partial(self._add_function, timeout=timeout, retries=retries, queue=queue)
        return _Decorator(web, function, retries)

    def _add_web(self, web: WebFunction[P, R], timeout: float | None, max_attempts: int | None) -> None:
        self._check_name(web.label, self.web, "web functions with the label")
        self.web[web.label] = web
        self._mounted[web.label] = Mount(web.wait_for_response, timeout, max_attempts)

    def _add_function(
        self, function: Callable[P, R], timeout: float | None, retries: int, queue: str
    ) -> Function[P, R]:
        name = getattr(function, "__name__", "")
        if not name.isidentifier() or name != getattr(function, "__qualname__", name):
            raise ConfigurationError(
                f"{function!r} cannot be found by name in a worker: define it with `def`, at the top "
                "level of the module"
            )
        self._check_name(name, self.functions, "functions named")
        made = Function(function, partial(self._queue_name, queue), timeout=timeout or 300.0, retries=retries)
        self.functions[name] = made
        self.queues.add(queue)
        return made

    @property
    def mounts(self) -> Mounts:
        """Where the web functions stand, as workers tell it."""
        return Mounts(self._mounted)

    def _queue_name(self, queue: str) -> str:
        return f"{self.name}:{queue}"

    def _check_name(self, name: str, taken: Iterable[str], what: str) -> None:
        if name in taken:
            raise ConfigurationError(f"two {what} {name!r} in one stub: give one another name")

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if self._front is None:
            with self._lock:
                if self._front is None:
                    self._front = self._new_front()
        return self._front(environ, start_response)

    def _new_front(self) -> Front:
        if not self.web:
            raise ConfigurationError(
                f"stub {self.name!r} has no web function: add @stub.function() above @wsgi_app(), "
                "@asgi_app() or @web_endpoint()"
            )
        if self.functions:
            secret.required()
        return Front(
            redis_url(), self.name, Routes(Settings.load()), mounts=self.mounts, templates=self._templates()
        )


class _Decorator:
    """What `stub.function()` returns."""

    def __init__(
        self,
        add_web: Callable[[WebFunction[Any, Any]], None],
        add_function: Callable[[Callable[..., Any]], Function[..., Any]],
        retries: int,
    ) -> None:
        self._add_web = add_web
        self._add_function = add_function
        self._retries = retries

    @overload
    def __call__(self, function: WebFunction[P, R]) -> WebFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Function[P, R]: ...
    def __call__(self, function: Any) -> Any:
        if isinstance(function, WebFunction):
            if self._retries:
                raise ConfigurationError(
                    "retries= is for functions; a web function has max_attempts=, for workers that die"
                )
            self._add_web(function)
            return function
        if not callable(function):
            raise ConfigurationError(
                f"@stub.function() stands above a function, or above @wsgi_app(), @asgi_app() or "
                f"@web_endpoint(), not above {function!r}"
            )
        if isinstance(function, Function):
            raise ConfigurationError(f"{function!r} has @stub.function() twice")
        return self._add_function(function)
