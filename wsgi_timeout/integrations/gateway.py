"""The gateway: a WSGI callable for a web server, in front of a target that workers run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wsgi_timeout import target as targets
from wsgi_timeout.front.front import Front
from wsgi_timeout.http.routes import Routes
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.connection import redis_url


def gateway(
    target: str,
    *,
    name: str | None = None,
    only: Iterable[str] = (),
    except_: Iterable[str] = (),
    routes: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Front:
    """Return the WSGI callable that runs requests to `target` as calls.

    `target` is an import string as gunicorn takes it, and is not imported here, unless `only` or
    `except_` leave routes in the web process. `name` is the queue's, by default the target's top
    module. `routes` gives settings to patterns, `settings` are those of `Settings`. Raises
    `ConfigurationError`, with what to set.
    """
    given = Routes(Settings.load(**settings), only=only, except_=except_, routes=routes)
    app = None if given.capture_all else targets.load(target)
    return Front(redis_url(), name or targets.name_of(target), given, target=target, app=app)
