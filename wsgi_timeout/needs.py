"""Packages that only one half, or only some apps, need: what is missing is said by name."""

from __future__ import annotations

from importlib.util import find_spec

from wsgi_timeout.errors import ConfigurationError


def need(module: str, what: str, extra: str) -> None:
    """Raise `ConfigurationError` where `module` is not installed, which `what` needs.

    `extra` is that of wsgi-timeout-halves by which pip installs it.
    """
    if find_spec(module) is None:
        raise ConfigurationError(
            f"{what} needs {module}, which is not installed here: install it, by the extra [{extra}] of "
            "wsgi-timeout-halves, or install wsgi-timeout, which brings everything"
        )
