"""gunicorn's settings, each looked up once: it reads some twenty of them for each request."""

from __future__ import annotations

from typing import Any


class QuickSettings:
    """Does as gunicorn's `Config`, for a process that has loaded its app."""

    def __init__(self, cfg: Any) -> None:
        self.__dict__["_cfg"] = cfg

    def __getattr__(self, name: str) -> Any:
        value = self.__dict__[name] = getattr(self._cfg, name)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self._forget()
        setattr(self._cfg, name, value)

    def set(self, name: str, value: Any) -> None:
        """Change a setting, as hooks of a configuration may do."""
        self._forget()
        self._cfg.set(name, value)

    def _forget(self) -> None:
        cfg = self._cfg
        self.__dict__.clear()
        self.__dict__["_cfg"] = cfg
