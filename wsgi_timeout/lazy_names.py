"""Names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a package, which finds each name in its module."""

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module 'wsgi_timeout' has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return get
