"""Applies a gunicorn configuration file to our worker processes: `--gunicorn-config FILE`."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsgi_timeout.errors import ConfigurationError

#: Settings that are applied to the whole pool, and hooks that are called for its processes.
_SETTINGS = ("raw_env", "chdir", "pythonpath", "umask")
_HOOKS = ("post_fork", "post_worker_init", "worker_exit", "child_exit")


class GunicornFile:
    """A gunicorn configuration file, or a module as `python:MODULE`."""

    def __init__(self, location: str) -> None:
        """Read it; raises `ConfigurationError`."""
        # Imported here, so that without this option a worker imports nothing of gunicorn.
        try:
            from gunicorn.config import Config  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(
                f"--gunicorn-config {location!r} needs gunicorn in this environment: {error}"
            ) from error

        self._location = location
        #: gunicorn's configuration: the file's values, gunicorn's defaults for all others.
        self.cfg: Any = Config()
        self._given = []
        for name, value in _read(location).items():
            if name in self.cfg.settings:
                self._set(name, value)
                self._given.append(name)

    def _set(self, name: str, value: Any) -> None:
        try:
            self.cfg.set(name, value)
        except Exception as error:  # gunicorn's checks raise many kinds
            raise ConfigurationError(
                f"--gunicorn-config {self._location!r}: {name} = {value!r}: {error}"
            ) from error

    def apply(self) -> None:
        """Apply the settings to this process and those that it forks; raises `ConfigurationError`."""
        try:
            os.environ.update(self.cfg.env)
        except RuntimeError:
            raise ConfigurationError(
                f"--gunicorn-config {self._location!r}: raw_env = {self.cfg.raw_env!r}: write KEY=VALUE"
            ) from None
        if "chdir" in self._given:
            try:
                os.chdir(self.cfg.chdir)
            except OSError as error:
                raise ConfigurationError(
                    f"--gunicorn-config {self._location!r}: chdir = {self.cfg.chdir!r}: {error.strerror}"
                ) from None
        for folder in reversed((self.cfg.pythonpath or "").split(",")):
            if folder:
                _import_from(str(Path(folder).absolute()))
        if "umask" in self._given:
            os.umask(self.cfg.umask)

    def told(self, *, python: str | None) -> str:
        """Return a line that names the settings that are honoured, and those that are not.

        `python`: another interpreter that runs the app; hooks, which run in this one, are not called then.
        """
        known = _SETTINGS if python else _SETTINGS + _HOOKS
        honoured = ", ".join(name for name in known if name in self._given)
        others = ", ".join(sorted(name for name in self._given if name not in known))
        end = f"; not honoured: {others}" if others else ""
        if python and any(name in _HOOKS for name in self._given):
            end += " (hooks do not reach an app under --python)"
        return f"{self._location}, for workers: {honoured or 'nothing'}{end}"


def set_up(location: str | None, python: str | None, say: Callable[[str], None]) -> GunicornFile | None:
    """Read and apply a file, and `say` what is honoured; None if none is given. Raises as `GunicornFile`."""
    if not location:
        return None
    file = GunicornFile(location)
    file.apply()
    say(file.told(python=python))
    return file


def _import_from(folder: str) -> None:
    # Also in the environment, since the app may run in a process of its own.
    if folder not in sys.path:
        sys.path.insert(0, folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))


def _read(location: str) -> dict[str, Any]:
    try:
        return _names_in(location)
    except ConfigurationError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise ConfigurationError(
            f"--gunicorn-config {location!r} raised {type(error).__name__}, see above"
        ) from error


def _names_in(location: str) -> dict[str, Any]:
    """Run the file, as gunicorn does, or import the module, and return its names."""
    if location.startswith("python:"):
        sys.path.insert(0, str(Path.cwd()))
        return vars(importlib.import_module(location.removeprefix("python:")))
    path = Path(location.removeprefix("file:")).absolute()
    if not path.is_file():
        raise ConfigurationError(f"--gunicorn-config {location!r}: there is no such file")
    loader = importlib.machinery.SourceFileLoader("__config__", str(path))
    spec = importlib.util.spec_from_file_location("__config__", path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["__config__"] = module
    loader.exec_module(module)
    return vars(module)
