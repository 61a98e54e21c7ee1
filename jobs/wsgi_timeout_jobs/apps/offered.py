"""What a loaded target offers: its WSGI apps, by the entry that requests name, and its functions."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from wsgi_timeout import secret
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.needs import need
from wsgi_timeout.store.messages import INNER_ENTRY
from wsgi_timeout.target_apps import is_asgi
from wsgi_timeout_jobs.apps.other_python.app import OtherPythonApp

if TYPE_CHECKING:
    from wsgi_timeout.integrations.extension import InstalledFront
    from wsgi_timeout.integrations.stub import Stub

log = logging.getLogger("wsgi_timeout.worker")

WSGIApp = Callable[..., Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Entries:
    """The apps and functions of one imported target."""

    #: WSGI apps by entry, see `CallRequest.entry`.
    apps: dict[str, WSGIApp]
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)
    #: Queues of functions, without the target's name in front.
    queues: tuple[str, ...] = ()
    #: A name that the target gives itself, empty if none.
    name: str = ""
    #: A stub's web functions as JSON, for web processes, which do not import the stub.
    mounts: str = ""


def of_target(app: Any, *, queue: str) -> Entries:
    """Return what a target offers to a worker of web calls (`queue` empty), or of a queue of functions.

    Raises `ConfigurationError`, and what building the app raises.
    """
    if _is_stub(app):
        return _of_stub(app, queue)
    if queue:
        raise ConfigurationError(f"{app!r} is no Stub: it has no functions for a queue {queue!r}")
    if is_asgi(app):
        from wsgi_timeout_jobs.apps.asgi import AsgiBridge  # noqa: PLC0415 - most targets have none

        return Entries({"": AsgiBridge(app)})
    if isinstance(app, OtherPythonApp):
        return _of_other_python(app)
    if installed := _own_front(app):
        whole = _Warned(app) if installed.configured else app
        return Entries({"": whole, INNER_ENTRY: installed.inner}, name=installed.name)
    return Entries({"": app})


# Nothing of `integrations` is imported here: with Flask and the front that takes a worker 0.2 s, which an
# app need not pay that is neither a stub nor has an extension of ours. One that is has imported it.


def _is_stub(app: Any) -> TypeGuard[Stub]:
    module = sys.modules.get("wsgi_timeout.integrations.stub")
    return module is not None and isinstance(app, module.Stub)


def _own_front(app: Any) -> InstalledFront | None:
    """Return what the app's own `RequestTimeouts` has left in it."""
    module = sys.modules.get("wsgi_timeout.integrations.extension")
    extensions = getattr(app, "extensions", None)  # other apps than Flask's may have anything here
    installed = extensions.get(module.EXTENSION) if module and isinstance(extensions, Mapping) else None
    return installed if module and isinstance(installed, module.InstalledFront) else None


def _of_other_python(app: OtherPythonApp) -> Entries:
    if app.own_front is None:
        return Entries({"": app})
    name, configured = app.own_front
    return Entries({"": _Warned(app) if configured else app, INNER_ENTRY: app.inner}, name=name)


class _Warned:
    """An app whose own `RequestTimeouts` is not asked: its first request says so."""

    def __init__(self, app: WSGIApp) -> None:
        self._app = app
        self._told = False

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not self._told:
            self._told = True
            log.warning(
                "the settings of RequestTimeouts(...) in the app do not count: requests come from a front "
                "before it (`serve`, or `gateway`). Give them as options or WSGI_TIMEOUT_... variables, or "
                "serve the app itself: gunicorn -c python:wsgi_timeout.gunicorn_conf MODULE:APP"
            )
        return self._app(environ, start_response)


def _of_stub(stub: Stub, queue: str) -> Entries:
    from wsgi_timeout_jobs.apps.build import ByPath, build  # noqa: PLC0415 - it imports `integrations`

    if stub.functions:
        need("cloudpickle", "a stub with functions", "functions")
        secret.required()
    functions = {name: function.local for name, function in stub.functions.items()}
    apps: dict[str, WSGIApp] = {}
    if not queue:  # a process for functions builds no web apps, which may be large
        apps = {label: build(web) for label, web in stub.web.items()}
        apps[""] = ByPath(dict(apps), stub.mounts)
    return Entries(
        apps,
        functions,
        tuple(sorted(stub.queues)),
        stub.explicit_name or "",
        stub.mounts.dumps() if apps else "",
    )
