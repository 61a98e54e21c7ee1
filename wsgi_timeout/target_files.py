"""Files that name an app of a framework: Django's `manage.py`, and the `.ini` of Pyramid and pserve."""

from __future__ import annotations

import configparser
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from wsgi_timeout.errors import TargetError

_SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE['"]\s*,\s*['"]([\w.]+)['"]""")
_SETTINGS_VARIABLE = "DJANGO_SETTINGS_MODULE"


@dataclass(frozen=True)
class FrameworkFile:
    """What such a file says of its app."""

    #: What a target names: a module, and an expression in it.
    module: str
    expression: str
    #: The app's own package.
    name: str
    #: Its source: a file, or the folder of a package.
    place: Path
    #: Django's settings module; empty for others.
    settings: str = ""


def read(target: str) -> FrameworkFile | None:
    """Return what `manage.py` or an `.ini` says; None if the target is something else.

    Raises `TargetError` for an `.ini` that cannot be read.
    """
    target = target.strip()
    path, _, section = target.partition("#")
    if path.endswith(".ini"):
        return _of_ini(target, Path(path), section or "main")
    return _of_manage(Path(target)) if Path(target).name == "manage.py" else None


def django_settings(manage: Path) -> str:
    """Return the settings module that a `manage.py` names; empty without one."""
    try:
        found = _SETTINGS.search(manage.read_text("utf-8", "replace"))
    except OSError:
        return ""
    return found[1] if found else ""


def project_of(settings: str) -> str:
    """Return the package of a settings module: `mysite` of `mysite.settings.production`."""
    return re.sub(r"\.settings(\.\w+)*$", "", settings)


def prepare(target: str) -> str:
    """Return the import string of a target; what its file sets for the app is set, where nothing else is."""
    found = read(target)
    if found is None:
        return target
    if found.settings:
        os.environ.setdefault(_SETTINGS_VARIABLE, found.settings)
        _import_from(Path(target).resolve().parent)
    return f"{found.module}:{found.expression}"


def _import_from(folder: Path) -> None:
    """Have this process, and those that it starts, import from the folder of a `manage.py`."""
    if str(folder) not in {*sys.path, str(Path.cwd())}:
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def _of_manage(manage: Path) -> FrameworkFile | None:
    settings = os.environ.get(_SETTINGS_VARIABLE) or django_settings(manage)
    if not settings or not manage.is_file():
        return None
    project = project_of(settings)
    place = manage.resolve().parent.joinpath(*project.split("."))
    name = project.partition(".")[0]
    if (place / "wsgi.py").is_file():
        return FrameworkFile(f"{project}.wsgi", "application", name, place, settings)
    return FrameworkFile("django.core.wsgi", "get_wsgi_application()", name, place, settings)


def _of_ini(target: str, path: Path, section: str) -> FrameworkFile:
    parser = configparser.RawConfigParser(strict=False)
    try:
        if not parser.read(path, "utf-8"):
            raise TargetError(f"target {target!r}: no such file: {path.resolve()}")
    except configparser.Error as error:
        raise TargetError(f"target {target!r}: {error}") from None
    used = next(
        (
            parser.get(each, "use")
            for each in (f"app:{section}", f"composite:{section}", f"pipeline:{section}")
            if parser.has_option(each, "use")
        ),
        "",
    )
    # egg:shop#main, call:shop.web:main
    name = re.sub(r"[^A-Za-z0-9_-].*", "", used.partition(":")[2]) or path.stem
    # As it was given: a release's folder is another one on each machine.
    call = f"get_app({str(path)!r}, {section!r})"
    return FrameworkFile("pyramid.paster", call, name, path.resolve())
