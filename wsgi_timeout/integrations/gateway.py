"""The gateway: a WSGI callable for a web server, in front of a target that workers run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from wsgi_timeout import target as targets
from wsgi_timeout.front.front import Front
from wsgi_timeout.http.routes import Routes
from wsgi_timeout.settings import NAME_VARIABLE, Settings
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

    For a web server: `gunicorn 'wsgi_timeout:gateway("legacy:app")'`. Workers run the same target:
    `wsgi-timeout worker legacy:app`.

    Args:
        target: an import string: `module:app`, `module:factory()` or `file.py:app`. It is imported by
            workers only, but where `only` or `except_` leave routes in the web process.
        name: the queue's name, `wt:<name>`, by default the environment's `WSGI_TIMEOUT_NAME`, else the
            target's top module. Two apps on one Redis need two names.
        only: patterns of the requests that run as calls, as "/reports/*" or "POST /ocr"; all others are
            answered in the web process.
        except_: patterns of the requests that do not run as calls.
        routes: settings of single routes, by pattern: `{"POST /ocr": {"timeout": 7200}}`.
        settings: any of `Settings`; they stand before the environment.

    Returns:
        A WSGI callable.

    Raises:
        ConfigurationError: a setting or a pattern that cannot work; the message says what to change.
        TargetError: the import string names no WSGI app.
    """
    given = Routes(Settings.load(**settings), only=only, except_=except_, routes=routes)
    app = None if given.capture_all else targets.load(target)
    return Front(
        redis_url(),
        name or os.environ.get(NAME_VARIABLE) or targets.name_of(target),
        given,
        target=target,
        app=app,
        templates=[targets.templates_of(target)],
    )
